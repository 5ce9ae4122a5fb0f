// Package disk is everything of vmdisk that lives in Ceph: the connection,
// the names, images, root disks, volumes, backups, and who holds them.
//
// A [Cluster] is one connection to Ceph, safe for concurrent use; whoever opens
// it closes it. Its methods take plain values and return plain values: pools and
// images are opened and closed within the call, so there is nothing else to
// close. A call blocks until Ceph answers or its timeout ends, see
// [Config.Timeout]; a context is looked at before the call and between chunks,
// because a call into librbd cannot be interrupted.
//
// Errors are [*Error]. They match this package's sentinels ([ErrNotFound],
// [ErrInUse] …) and the native error of librados or librbd with [errors.Is].
//
// The layout is the one that OpenStack's Glance, Nova and Cinder use, so that
// they can share the pools: images in "images" with the protected snapshot
// "snap", root disks "UUID_disk" in "vms", volumes "volume-ID" in "volumes", their
// backups as snapshots of "volume-ID.backup.ID" in "backups".
package disk
