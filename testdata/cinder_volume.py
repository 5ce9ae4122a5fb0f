# Cinder's own RBD driver: cinder_volume.py CEPH_CONF reads calls, a line of JSON
# each, [CALL, ARGUMENT...] with volumes and snapshots by their IDs, and answers each
# with a line: {"result": ...} or, for an exception of Cinder's, {"error": NAME}.

import json
import sys
from types import SimpleNamespace

from cinder import exception
from cinder.volume import configuration
from cinder.volume.drivers import rbd
from oslo_config import cfg


def driver(conf):
    cfg.CONF([], project="cinder", default_config_files=[])
    c = configuration.Configuration(rbd.RBD_OPTS, config_group="ceph")
    for name, value in {"rbd_pool": "volumes", "rbd_user": "cinder", "rbd_ceph_conf": conf}.items():
        cfg.CONF.set_override(name, value, group="ceph")
    d = rbd.RBDDriver(configuration=c)
    d.do_setup(None)
    return d


def volume(ident, size=1):
    return SimpleNamespace(
        id=ident, name="volume-" + ident, size=int(size), volume_type=None,
        volume_type_id=None, use_quota=True, encryption_key_id=None)


def snapshot(vol, ident):
    return SimpleNamespace(
        id=ident, name="snapshot-" + ident, volume_name="volume-" + vol, volume_size=1)


def depth(d, ident):
    with rbd.RADOSClient(d) as client:
        return d._get_clone_depth(client, "volume-" + ident)


def manageable(d):
    found = d.get_manageable_volumes([], None, 1000, 0, ["size"], ["asc"])
    return {v["reference"]["source-name"]: [v["size"], v["safe_to_manage"], v["reason_not_safe"]] for v in found}


CALLS = {
    "create": lambda d, i, size: d.create_volume(volume(i, size)),
    "delete": lambda d, i: d.delete_volume(volume(i)),
    "extend": lambda d, i, size: d.extend_volume(volume(i), int(size)),
    "clone": lambda d, src, i: d.create_cloned_volume(volume(i), volume(src)),
    "snapshot": lambda d, v, i: d.create_snapshot(snapshot(v, i)),
    "delete-snapshot": lambda d, v, i: d.delete_snapshot(snapshot(v, i)),
    "revert": lambda d, v, i: d.revert_to_snapshot(None, volume(v), snapshot(v, i)),
    "from-snapshot": lambda d, v, s, i: d.create_volume_from_snapshot(volume(i), snapshot(v, s)),
    "depth": depth,
    "manageable": manageable,
}

d = driver(sys.argv[1])
for line in sys.stdin:
    call, *arguments = json.loads(line)
    try:
        answer = {"result": CALLS[call](d, *arguments)}
    except exception.CinderException as e:
        answer = {"error": type(e).__name__}
    print(json.dumps(answer), flush=True)
