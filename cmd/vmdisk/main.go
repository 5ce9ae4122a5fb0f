// Command vmdisk keeps the disks of QEMU/libvirt virtual machines in Ceph RBD.
//
// One file holds one subcommand. What they share: app.go the flags and the Host
// made of them, args.go the order in which flags may be typed, ui.go what is
// printed where, exit.go the exit codes.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	protectKeys()
	// A reader that went away (| head), and a terminal that did (ssh), must not
	// end a workflow in its middle.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// The first signal asks for a clean end; the next one has its usual effect.
	go func() { <-ctx.Done(); stop() }()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// protectKeys keeps the cephx key, which is in our memory, out of core dumps.
func protectKeys() {
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0)
}
