# glance_import.py FILE: an image as Glance's own store takes it in. It lives in a service, so
# that its start is not counted.

import os
import sys
import time

import glance_store
from glance_store import backend
from oslo_config import cfg

conf = cfg.ConfigOpts()
glance_store.register_opts(conf)
conf([], project="glance", default_config_files=[])
for option, value in {"stores": ["rbd"], "default_store": "rbd", "rbd_store_user": "glance",
                      "rbd_store_ceph_conf": os.environ["CEPH_CONF"]}.items():
    conf.set_override(option, value, group="glance_store")
glance_store.create_stores(conf)
path = sys.argv[1]
begun = time.monotonic()
with open(path, "rb") as f:
    backend.add_to_backend_with_multihash(conf, "bench", f, os.path.getsize(path), "sha512", scheme="rbd")
print("seconds=%f" % (time.monotonic() - begun))
