# Glance's own RBD store: glance_rbd.py CEPH_CONF reads calls, a line of JSON each,
# [CALL, ARGUMENT...], and answers each with a line: {"result": ...} or, for an
# exception, {"error": ITS NAME, "message": ...}. An image is stored from a file, and
# read from its URL as Glance's API does.

import hashlib
import json
import os
import sys

import glance_store
import rados
import rbd
from glance_store import backend
from glance_store import location
from oslo_config import cfg

conf = cfg.ConfigOpts()


def start(ceph_conf):
    glance_store.register_opts(conf)
    conf([], project="glance", default_config_files=[])
    conf.set_override("stores", ["rbd"], group="glance_store")
    conf.set_override("default_store", "rbd", group="glance_store")
    conf.set_override("rbd_store_ceph_conf", ceph_conf, group="glance_store")
    conf.set_override("rbd_store_user", "glance", group="glance_store")
    glance_store.create_stores(conf)


def add(image, path, known):
    """Uploads a file; known says whether its size is told beforehand."""
    size = os.path.getsize(path) if known else 0
    with open(path, "rb") as f:
        url, stored, md5, multihash, _ = backend.add_to_backend_with_multihash(
            conf, image, f, size, "sha512", scheme="rbd")
    return {"url": url, "size": stored, "sha512": multihash}


def get(url):
    data, size = backend.get_from_backend(url)
    digest = hashlib.sha512()
    read = 0
    for chunk in data:
        digest.update(chunk)
        read += len(chunk)
    return {"size": size, "read": read, "sha512": digest.hexdigest()}


def size(url):
    return backend.get_size_from_backend(url)


def delete(url):
    backend.delete_from_backend(url)


def parse(url):
    where = location.get_location_from_uri(url, conf=conf).store_location
    return [where.fsid, where.pool, where.image, where.snapshot]


def clone(url, pool, image):
    """Clones as Nova does: from the URL's snapshot, as client.cinder."""
    fsid, parent_pool, parent, snapshot = parse(url)
    with rados.Rados(conffile=conf.glance_store.rbd_store_ceph_conf, rados_id="cinder") as cluster:
        if cluster.get_fsid() != fsid:
            raise ValueError("another cluster")
        with cluster.open_ioctx(parent_pool) as source, cluster.open_ioctx(pool) as target:
            with rbd.Image(source, parent, snapshot=snapshot, read_only=True):
                pass
            rbd.RBD().clone(source, parent, snapshot, target, image)


calls = {f.__name__: f for f in (add, get, size, delete, parse, clone)}

start(sys.argv[1])
for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        answer = {"result": calls[name](*arguments)}
    except Exception as e:
        answer = {"error": type(e).__name__, "message": str(e)}
    print(json.dumps(answer), flush=True)
