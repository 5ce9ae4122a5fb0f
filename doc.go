// Package vmdisk keeps the disks of QEMU/libvirt virtual machines in Ceph RBD.
//
// A [Host] is one libvirt host and one Ceph cluster. Its methods are whole
// workflows: [Host.Boot] clones a protected image, grows the clone, renders,
// defines and starts a machine; [Host.Attach] and [Host.Detach] plug volumes in
// and out; [Host.Migrate] moves a running machine to another host;
// [Host.Remove] ends a machine and removes what it owns.
//
//	host, err := vmdisk.Open(ctx, vmdisk.Config{URI: "qemu:///system"})
//	if err != nil {
//		return err
//	}
//	defer host.Close()
//	vm, err := host.Boot(ctx, "web1", vmdisk.BootOptions{Image: "debian-12", Size: 10 << 30})
//
// A workflow is a list of steps. If one fails, or the context ends, what this
// run made is undone, last step first, and nothing else; [Error] says what was
// being done and names what could not be undone. Removing never undoes: run
// again, it finishes.
//
// The package neither prints nor logs. What happens is told to [Config.Observe],
// what came of it is the return value. Methods block until they are done; they
// may be called from any number of goroutines.
//
// The packages below do the parts: disk what is in Ceph, secret the keys, domain
// the machines, migrate the moving. Each can be used by itself.
package vmdisk
