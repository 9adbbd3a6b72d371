import os,sys
from nscontainer.linux import cgroup
from nscontainer.errors import one_line
from nscontainer.spec import Limits
L=cgroup.detect(); print(L)
try:
    c=cgroup.create(L,"u",want=cgroup.default_want(L)); print(c.paths)
    for l in (Limits(memory_bytes=64<<20),Limits(pids=3),Limits(cpu_quota_us=20000)):
        try: c.arm(l); print("ok",l.memory_bytes)
        except Exception as e: print(type(e).__name__, one_line(e))
    try: c.place(Limits(cpuset_cpus="0"))
    except Exception as e: print(type(e).__name__, one_line(e))
    print(c.read_back())
    r=c.reader(); print(r.read()); r.close()
    c.remove()
except Exception as e: print(type(e).__name__, one_line(e))
# step aside, as a spawner would
if L.unified!="/sys/fs/cgroup":
    leaf=L.unified+"/self"; os.mkdir(leaf)
    for p in open(L.unified+"/cgroup.procs").read().split(): open(leaf+"/cgroup.procs","w").write(p)
    L=cgroup.detect(); print("aside:",L.unified)
    from dataclasses import replace
    base=os.path.dirname(leaf)
    names=open(base+"/cgroup.controllers").read().split()
    L=cgroup.Layout("v2",dict.fromkeys(names,base),base)
    c=cgroup.create(L,"u",want=cgroup.default_want(L)); print(c.paths)
    for l in (Limits(memory_bytes=64<<20),Limits(pids=3),Limits(cpu_quota_us=20000)):
        try: c.arm(l); print("ok")
        except Exception as e: print(type(e).__name__, one_line(e))
    try: c.place(Limits(cpuset_cpus="0"))
    except Exception as e: print(type(e).__name__, one_line(e))
    pid=os.fork()
    if pid==0:
        import time; time.sleep(9); os._exit(0)
    c.add(pid); print(c.pids()==[pid]); c.kill(); os.waitpid(pid,0); c.remove(); print(os.listdir(base))
