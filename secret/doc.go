// Package secret hands cephx keys to libvirt, so that a guest's disk can be
// opened without its key being written anywhere else.
//
// A libvirt secret of usage "client.USER secret" holds the key of one cephx
// user; disks name it by UUID. [Ensure] makes or mends it on one host, under a
// UUID that is the same on every host ([UUID]).
//
// A [Key] prints as "[redacted]": no error, log or format verb shows it.
package secret
