// Defining, starting, stopping and undefining machines.

package domain

import (
	"context"
	"errors"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// poll is how often a state is asked for that libvirt cannot be waited for. Its
// events need a loop that is global to the process, which a library must not
// start.
const poll = 50 * time.Millisecond

// VirtType is what a host's machines should be: "kvm" if libvirt offers it, else
// "qemu" (emulation).
//
// Similar to: virsh domcapabilities.
func VirtType(conn *libvirt.Connect) (string, error) {
	if _, err := conn.GetDomainCapabilities("", "x86_64", "", "kvm", 0); err == nil {
		return "kvm", nil
	}
	text, err := conn.GetDomainCapabilities("", "x86_64", "", "qemu", 0)
	if err != nil {
		return "", wrap("read capabilities of", "host", err)
	}
	var caps libvirtxml.DomainCaps
	if err := caps.Unmarshal(text); err != nil {
		return "", wrap("read capabilities of", "host", err)
	}
	return caps.Domain, nil
}

// Define makes a machine persistent, its XML validated against libvirt's
// schema. A name or UUID that is taken is [ErrExists] and changes nothing.
//
// Similar to: virsh define --validate.
func Define(ctx context.Context, conn *libvirt.Connect, name, uuid, xml string) error {
	for _, key := range []string{name, uuid} {
		err := with(ctx, conn, key, func(*libvirt.Domain) error { return nil })
		if err == nil {
			return &Error{Object: "VM " + key, Kind: ErrExists}
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return redefine(ctx, conn, name, xml)
}

func redefine(ctx context.Context, conn *libvirt.Connect, name, xml string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := call(ctx, conn, "define", name, func() (struct{}, error) {
		d, err := conn.DomainDefineXMLFlags(xml, libvirt.DOMAIN_DEFINE_VALIDATE)
		if err != nil {
			return struct{}{}, wrap("define", name, err)
		}
		return struct{}{}, d.Free()
	})
	return err
}

// Undefine forgets a machine that is not running, with what libvirt keeps for it
// (saved state, NVRAM). One that is not there is fine.
//
// Similar to: virsh undefine --managed-save --nvram --snapshots-metadata.
func Undefine(ctx context.Context, conn *libvirt.Connect, vm string) error {
	err := with(ctx, conn, vm, func(d *libvirt.Domain) error {
		return wrap("undefine", vm, d.UndefineFlags(libvirt.DOMAIN_UNDEFINE_MANAGED_SAVE|
			libvirt.DOMAIN_UNDEFINE_NVRAM|libvirt.DOMAIN_UNDEFINE_SNAPSHOTS_METADATA|
			libvirt.DOMAIN_UNDEFINE_CHECKPOINTS_METADATA))
	})
	return ignore(err, ErrNotFound)
}

// Redefine passes a machine's persistent XML through change and defines the
// result if it changed anything. What a running machine has now is not touched.
func Redefine(ctx context.Context, conn *libvirt.Connect, vm string, change func(xml string) (string, bool, error)) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		// Without SECURE a password in the XML (VNC) would be lost.
		old, err := d.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE | libvirt.DOMAIN_XML_SECURE)
		if err != nil {
			return wrap("read XML of", vm, err)
		}
		text, changed, err := change(old)
		if err != nil || !changed {
			return err
		}
		return redefine(ctx, conn, vm, text)
	})
}

// Persistent says whether a host keeps a machine that is off, or forgets it.
//
// Similar to: virsh dominfo.
func Persistent(ctx context.Context, conn *libvirt.Connect, vm string) (bool, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (bool, error) {
		is, err := d.IsPersistent()
		return is, wrap("inspect", vm, err)
	})
}

// Start starts a machine; one that runs already is fine.
//
// Similar to: virsh start.
func Start(ctx context.Context, conn *libvirt.Connect, vm string) error {
	return start(ctx, conn, vm, libvirt.DOMAIN_NONE)
}

// StartPaused starts a machine whose guest does nothing until [Resume]; one that has a
// QEMU already is fine.
//
// Similar to: virsh start --paused.
func StartPaused(ctx context.Context, conn *libvirt.Connect, vm string) error {
	return start(ctx, conn, vm, libvirt.DOMAIN_START_PAUSED)
}

func start(ctx context.Context, conn *libvirt.Connect, vm string, flags libvirt.DomainCreateFlags) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		if state, _, err := d.GetState(); err == nil && hasQEMU(state) {
			return nil
		}
		return wrap("start", vm, d.CreateWithFlags(flags))
	})
}

// Resume lets a machine go on that is paused; one that runs is fine.
//
// Similar to: virsh resume.
func Resume(ctx context.Context, conn *libvirt.Connect, vm string) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		if state, _, err := d.GetState(); err == nil && state == libvirt.DOMAIN_RUNNING {
			return nil
		}
		return wrap("resume", vm, d.Resume())
	})
}

// Shutdown asks the guest to power off and waits until it has, or until ctx
// ends, which is [ErrTimeout] if it was a deadline. One that is off is fine.
//
// Similar to: virsh shutdown, and waiting.
func Shutdown(ctx context.Context, conn *libvirt.Connect, vm string) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		var asked time.Time
		for {
			state, _, err := d.GetState()
			if errors.Is(err, libvirt.ERR_NO_DOMAIN) || err == nil && !hasQEMU(state) {
				return nil
			}
			if err != nil {
				return wrap("stop", vm, err)
			}
			// A guest that is still booting does not hear the first time.
			if time.Since(asked) > 5*time.Second {
				asked = time.Now()
				err := d.Shutdown()
				if err != nil && !errors.Is(err, libvirt.ERR_OPERATION_INVALID) {
					return wrap("stop", vm, err)
				}
			}
			if err := pause(ctx); err != nil {
				return wrap("stop", vm, err)
			}
		}
	})
}

// killTime is after how long libvirt kills a QEMU that does not end by itself, as one
// whose disk does not answer. Source: libvirt, virProcessKillPainfullyDelay.
const killTime = 15 * time.Second

// Destroy ends a machine as if its power was cut; one that is off or not there
// is fine. It can take 15 s.
//
// Similar to: virsh destroy.
func Destroy(ctx context.Context, conn *libvirt.Connect, vm string) error {
	ctx, cancel := context.WithTimeout(ctx, killTime-grace)
	defer cancel()
	err := with(ctx, conn, vm, func(d *libvirt.Domain) error {
		if err := d.Destroy(); !errors.Is(err, libvirt.ERR_OPERATION_INVALID) {
			return wrap("stop", vm, err)
		}
		return nil // it was not running
	})
	return ignore(err, ErrNotFound)
}

// Resize grows a running machine's disk; the guest sees it at once. Size is in
// bytes.
//
// Similar to: virsh blockresize.
func Resize(ctx context.Context, conn *libvirt.Connect, vm, target string, size int64) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		return wrap("resize "+target+" of", vm,
			d.BlockResize(target, uint64(size), libvirt.DOMAIN_BLOCK_RESIZE_BYTES))
	})
}

// pause waits a moment, or less if ctx ends.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(poll):
		return nil
	}
}

// ignore turns the error that means "already so" into nil.
func ignore(err, kind error) error {
	if errors.Is(err, kind) {
		return nil
	}
	return err
}
