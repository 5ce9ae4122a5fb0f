#!/usr/bin/python3
"""Drives Cinder's own backup driver for Ceph, as it is installed.

Only what Cinder keeps in its database is stood in for: the rows of the volume
and of the backup. The driver, the records and what it does to Ceph are Cinder's.

    cinder_backup.py CONF backup VOLUME BACKUP SIZE_GIB [PARENT_RECORD]
        makes a backup, full or the difference to the parent, and prints its record
    cinder_backup.py CONF restore RECORD VOLUME SIZE_GIB
        imports a record and restores the backup to an empty volume that is there
    cinder_backup.py CONF delete RECORD
        imports a record and removes the backup

Several commands with a + between them are run one after the other.
"""
import sys

import eventlet
eventlet.monkey_patch()

from oslo_config import cfg

from cinder import context
from cinder import objects
objects.register_all()
import cinder.backup.manager  # noqa: E402,F401 (registers options)
from cinder.backup.drivers import ceph  # noqa: E402
from os_brick.initiator import linuxrbd  # noqa: E402

CONF = cfg.CONF


class Volume(dict):
    """A row of the table of volumes."""

    def __getattr__(self, key):
        return self[key]

    def __iter__(self):
        return iter(self.items())


class Database:
    """What the driver asks of Cinder's database."""

    def __init__(self, volume):
        self.volume = volume

    def volume_get(self, context, id):
        assert id == self.volume["id"], id
        return self.volume

    def volume_metadata_get(self, context, id):
        return {}

    def volume_glance_metadata_get(self, context, id):
        return []

    def volume_update(self, context, id, values):
        assert set(values) <= {"display_name", "display_description"}, values


def backup_of(ctx, record):
    """The backup that a record is imported as; see cinder/backup/manager.py."""
    options = objects.Backup.decode_record(record)
    missing = {"display_name", "display_description", "container", "size",
               "service_metadata", "object_count", "id"} - set(options)
    assert not missing, missing
    backup = objects.Backup(ctx)
    for key, value in options.items():
        if key in ("id", "user_id", "project_id") or key in backup.fields:
            setattr(backup, key, value)
    return backup


def opened(ctx, volume, conf):
    """The volume as os-brick gives it to the backup manager."""
    client = linuxrbd.RBDClient("cinder", "volumes", conffile=conf)
    image = linuxrbd.RBDVolume(client, volume, read_only=False)
    meta = linuxrbd.RBDImageMetadata(image, "volumes", "cinder", conf)
    return linuxrbd.RBDVolumeIOWrapper(meta)


def run(driver, ctx, conf, command, *args):
    def row(id, size):
        volume = Volume(id=id, name="volume-" + id, size=int(size), display_name="", display_description="")
        driver.db = driver.backup_meta_api.db = Database(volume)

    if command == "backup":
        volume, backup_id, size, *parent = args
        row(volume, size)
        values = dict.fromkeys(objects.Backup.fields)
        for extra in ("parent", "metadata"):
            values.pop(extra)
        values.update(id=backup_id, user_id="lab", project_id="lab", volume_id=volume, size=int(size),
                      container="backups", object_count=0, num_dependent_backups=0, deleted=False)
        backup = objects.Backup(ctx, **values)
        backup.parent = backup_of(ctx, parent[0]) if parent else None
        backup.metadata = {}
        if parent:
            backup.parent_id = backup.parent.id
        backup.obj_reset_changes()
        io = opened(ctx, "volume-" + volume, conf)
        backup.update(driver.backup(backup, io) or {})
        io.close()
        print(backup.encode_record(driver_info=driver.export_record(backup)))
    elif command == "restore":
        record, volume, size = args
        row(volume, size)
        io = opened(ctx, "volume-" + volume, conf)
        driver.restore(backup_of(ctx, record), volume, io)
        io.close()
    elif command == "delete":
        driver.delete_backup(backup_of(ctx, args[0]))
    else:
        sys.exit("no command " + command)


def main():
    conf, *words = sys.argv[1:]
    CONF([], project="cinder", default_config_files=[])
    CONF.set_override("connection", "sqlite://", group="database")
    CONF.set_override("backup_ceph_conf", conf)
    CONF.set_override("backup_ceph_user", "cinder-backup")
    CONF.set_override("backup_ceph_pool", "backups")
    ctx = context.RequestContext("lab", "lab", is_admin=True)
    driver = ceph.CephBackupDriver(ctx)
    driver.check_for_setup_error()
    while words:
        end = words.index("+") if "+" in words else len(words)
        run(driver, ctx, conf, *words[:end])
        words = words[end + 1:]


main()
