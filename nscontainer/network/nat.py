"""The rules of a network: the way out, no way in, none from one network to another.

One nftables table a network, ``nscontainer_<its id>``, made and deleted as a whole. A verdict
``accept`` here doesn't overrule another table's ``drop``: a firewall of the host's stays one.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from nscontainer.errors import HostError
from nscontainer.linux import nftables
from nscontainer.network import forwarding
from nscontainer.network.records import Network

PREFIX: Final = "nscontainer_"


def set_up(network: Network) -> None:
    """Make the rules of a network whose bridge is there; made anew where they are already.

    Raises
    ------
    HostError
        There is no nftables, or a setting can't be written.
    """
    nftables.run(rules(network))
    # So that what is published on 127.0.0.1 is reached from there. `raw`, below, keeps the host's
    # loopback from being reached through it (CVE-2020-8558).
    path = f"/proc/sys/net/ipv4/conf/{network.bridge}/route_localnet"
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write("1")
    except OSError as error:
        message = f"{path} can't be written: {error.strerror}"
        raise HostError(message, hint="networks need root, and /proc/sys writable") from None
    if network.internal:
        _no_forwarding(network)
    else:
        forwarding.hold(network.bridge)


def refresh(network: Network) -> None:
    """Have interfaces of the host that have come since forward too, as a VPN's: a route's glance."""
    if not network.internal and forwarding.lags():
        forwarding.hold(network.bridge)


def tear_down(network: Network) -> None:
    """Remove the rules of a network, those of ports published on it too."""
    own = f"{PREFIX}{network.id}"
    nftables.delete_tables([t for t in nftables.tables() if t.startswith(own)])
    if not network.internal:
        forwarding.let_go(network.bridge)


def collect() -> list[str]:
    """Remove rules whose bridge is not there any more; give the tables' names."""
    stale = []
    for table in nftables.tables():
        identity = table.removeprefix(PREFIX).partition("_")[0]
        named = table.startswith(PREFIX) and table != forwarding.TABLE
        if named and not os.path.exists(f"/sys/class/net/{forwarding.OURS}{identity}"):
            stale.append(table)
    nftables.delete_tables(stale)
    forwarding.collect()
    return stale


def rules(network: Network) -> str:
    """Write a network's table in nft's language."""
    bridge, subnet = network.bridge, network.subnet
    # From an internal one nothing leaves; from another, nothing under somebody else's address.
    out = f'oifname != "{bridge}"' if network.internal else f"ip saddr != {subnet}"
    masquerade = f'ip saddr {subnet} oifname != "{bridge}" masquerade'
    chains = f"""
    chain raw {{
        type filter hook prerouting priority raw; policy accept;
        iifname "{bridge}" ip daddr 127.0.0.0/8 drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{bridge}" oifname "{bridge}" accept
        ct state established,related accept
        iifname "{bridge}" {out} drop
        ct status dnat accept
        iifname "{bridge}" oifname "{forwarding.OURS}*" drop
        oifname "{bridge}" drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        {"" if network.internal else masquerade}
        ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
        ip saddr {subnet} oifname "{bridge}" ct status dnat masquerade
    }}
"""
    return nftables.anew(f"{PREFIX}{network.id}", chains)


def _no_forwarding(network: Network) -> None:
    with contextlib.suppress(OSError):
        path = f"/proc/sys/net/ipv4/conf/{network.bridge}/forwarding"
        with open(path, "w", encoding="ascii") as file:
            file.write("0")
