// What a machine's QEMU does: its process, and why it stands still.

package domain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
	"libvirt.org/go/libvirt"
)

// Condition is what a machine does, more closely than [Info] says it.
type Condition struct {
	State   string // as virsh domstate --reason says it: "paused (I/O error)"
	Running bool   // it has a QEMU, be it paused
	IOError bool   // it is paused because a disk failed, as that of a fenced client does
	Moving  bool   // it is on its way from or to another host
	Paused  bool   // for whatever reason
	Job     bool   // libvirt is at something that takes long, as a migration
	Ended   bool   // it is off because its guest has powered off
	Crashed bool   // it is off because its QEMU died, or was ended from outside
	// Postcopy says that its memory is on two hosts: it runs on the destination, or
	// would, and is paused on the source. Broken is one that was interrupted.
	Postcopy, Broken bool
}

// pauses are virsh's words for why a machine is paused.
var pauses = map[libvirt.DomainPausedReason]string{
	libvirt.DOMAIN_PAUSED_USER:            "user",
	libvirt.DOMAIN_PAUSED_MIGRATION:       "migrating",
	libvirt.DOMAIN_PAUSED_SAVE:            "saving",
	libvirt.DOMAIN_PAUSED_IOERROR:         "I/O error",
	libvirt.DOMAIN_PAUSED_WATCHDOG:        "watchdog",
	libvirt.DOMAIN_PAUSED_SHUTTING_DOWN:   "shutting down",
	libvirt.DOMAIN_PAUSED_SNAPSHOT:        "creating snapshot",
	libvirt.DOMAIN_PAUSED_CRASHED:         "crashed",
	libvirt.DOMAIN_PAUSED_STARTING_UP:     "starting up",
	libvirt.DOMAIN_PAUSED_POSTCOPY:        "post-copy",
	libvirt.DOMAIN_PAUSED_POSTCOPY_FAILED: "post-copy failed",
}

// Inspect says what a machine does.
//
// Similar to: virsh domstate --reason.
func Inspect(ctx context.Context, conn *libvirt.Connect, vm string) (Condition, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (Condition, error) {
		c, err := glance(d, vm)
		if err != nil {
			return c, err
		}
		job, err := d.GetJobInfo()
		if err = wrap("inspect", vm, err); errors.Is(err, ErrTimeout) {
			return c, err // it has one, or its QEMU does not answer
		}
		if err == nil && job.Type != libvirt.DOMAIN_JOB_NONE {
			c.Moving, c.Job = true, true
		}
		return c, nil
	})
}

// Glance is [Inspect] without what QEMU may have to be waited for: whether there is a
// Job, and so whether it is Moving if it is not paused.
func Glance(ctx context.Context, conn *libvirt.Connect, vm string) (Condition, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (Condition, error) { return glance(d, vm) })
}

func glance(d *libvirt.Domain, vm string) (c Condition, err error) {
	state, reason, err := d.GetState()
	if err != nil {
		return c, wrap("inspect", vm, err)
	}
	c.State, c.Running = states[state], hasQEMU(state)
	var why libvirt.DomainPausedReason
	switch state {
	case libvirt.DOMAIN_SHUTOFF:
		switch libvirt.DomainShutoffReason(reason) {
		case libvirt.DOMAIN_SHUTOFF_SHUTDOWN:
			c.Ended = true
		case libvirt.DOMAIN_SHUTOFF_CRASHED, libvirt.DOMAIN_SHUTOFF_DESTROYED, libvirt.DOMAIN_SHUTOFF_FAILED:
			c.Crashed = true
		}
	case libvirt.DOMAIN_PAUSED:
		why = libvirt.DomainPausedReason(reason)
		c.Paused, c.IOError = true, why == libvirt.DOMAIN_PAUSED_IOERROR
		c.Moving = why == libvirt.DOMAIN_PAUSED_MIGRATION || why == libvirt.DOMAIN_PAUSED_STARTING_UP
	case libvirt.DOMAIN_RUNNING:
		why = runs[libvirt.DomainRunningReason(reason)]
	}
	if c.Paused || why != 0 {
		c.State += " (" + pauses[why] + ")"
	}
	if why == libvirt.DOMAIN_PAUSED_POSTCOPY || why == libvirt.DOMAIN_PAUSED_POSTCOPY_FAILED {
		c.Moving, c.Postcopy, c.Broken = true, true, why == libvirt.DOMAIN_PAUSED_POSTCOPY_FAILED
	}
	return c, nil
}

// runs are the reasons to run that others have for being paused.
var runs = map[libvirt.DomainRunningReason]libvirt.DomainPausedReason{
	libvirt.DOMAIN_RUNNING_POSTCOPY:        libvirt.DOMAIN_PAUSED_POSTCOPY,
	libvirt.DOMAIN_RUNNING_POSTCOPY_FAILED: libvirt.DOMAIN_PAUSED_POSTCOPY_FAILED,
}

// Process is a QEMU of this machine.
type Process struct {
	PID  int
	Host string // the host name that it sees: libvirtd may be in a container
}

// Processes finds the QEMUs of a machine among the processes of this computer, with
// or without a libvirtd that knows them. What it may not read it does not find.
func Processes(vm string) []Process {
	var all []Process
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte("\x00-uuid\x00"+vm+"\x00")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil {
			all = append(all, Process{PID: pid, Host: hostOf(pid)})
		}
	}
	return all
}

// hostOf is the host name that a process sees. Only root may ask in its place;
// anybody else sees their own.
func hostOf(pid int) string {
	name := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if f, err := os.Open(fmt.Sprintf("/proc/%d/ns/uts", pid)); err == nil {
			_ = unix.Setns(int(f.Fd()), unix.CLONE_NEWUTS)
			f.Close()
		}
		var u unix.Utsname
		_ = unix.Uname(&u) // it fails on a bad pointer only
		name <- unix.ByteSliceToString(u.Nodename[:])
	}()
	return <-name
}
