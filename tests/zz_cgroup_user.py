import os,sys,time
from nscontainer.linux import cgroup, clone
from nscontainer.errors import one_line
from nscontainer.spec import Limits
L=cgroup.detect()
def tries(c):
    for l in (Limits(memory_bytes=64<<20),Limits(pids=3),Limits(cpu_quota_us=20000)):
        try: c.arm(l); print("ok")
        except Exception as e: print(type(e).__name__, one_line(e))
    try: c.place(Limits(cpuset_cpus="0"))
    except Exception as e: print(type(e).__name__, one_line(e))
c=cgroup.create(L,"u",want=cgroup.default_want(L)); print(c.paths.keys()); tries(c); c.remove()
cgroup.make_room(L); assert cgroup.detect()==L
c=cgroup.create(L,"u",want=cgroup.default_want(L)); print(c.paths.keys()); tries(c)
pid,pidfd=clone.clone3(0,exit_signal=17,cgroup_fd=c.fd())
if pid==0: time.sleep(9); os._exit(0)
print(c.pids()==[pid]); c.add(pid); r=c.reader(); print(r.read()); r.close(); c.freeze(); c.thaw(); c.kill(); os.waitpid(pid,0); c.remove(); print([e for e in os.listdir(L.unified) if "nsc" in e])
