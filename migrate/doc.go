// Package migrate moves a running machine to another host: it checks first
// whether the move can work, then runs it, watches it, and aborts it cleanly.
//
// Both connections are borrowed. The memory goes from host to host; the disks
// stay in Ceph, where both hosts reach them.
package migrate
