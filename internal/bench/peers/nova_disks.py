# nova_disks.py COUNT: root disks as Nova's own library makes them. It lives in a service, so
# that its start is not counted.

import os
import sys
import time
import uuid

import nova.conf
from nova.storage import rbd_utils

nova.conf.CONF([], project="nova", default_config_files=[])
driver = rbd_utils.RBDDriver(pool="vms", user="cinder", ceph_conf=os.environ["CEPH_CONF"], connect_timeout=5)
image = {"url": "rbd://%s/images/guest/snap" % driver.get_fsid()}
begun = time.monotonic()
for _ in range(int(sys.argv[1])):
    name = "%s_disk" % uuid.uuid4()
    driver.clone(image, name)
    driver.resize(name, 10 << 30)
print("seconds=%f" % (time.monotonic() - begun))
