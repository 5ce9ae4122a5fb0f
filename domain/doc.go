// Package domain turns machines into libvirt domains and works on them: render
// the XML, define, start, stop, plug disks in and out, resize them.
//
// [Machine] and [Disk] are plain values. Functions that take a
// *libvirt.Connect borrow it; they free every other libvirt handle that they
// open before they return. They block until libvirtd answers; a context is
// looked at before a call and while waiting for a guest.
//
// Errors are [*Error] and match this package's sentinels and libvirt's own error
// codes with [errors.Is].
package domain
