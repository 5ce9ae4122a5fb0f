// Finding machines on a host, by name or UUID as virsh does.

package domain

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"
	"libvirt.org/go/libvirt"
)

// with runs f with the domain that a name or a UUID stands for; it is
// [ErrNotFound] if there is none. f must write to nothing of the caller's, see call.
func with(ctx context.Context, conn *libvirt.Connect, vm string, f func(*libvirt.Domain) error) error {
	_, err := read(ctx, conn, vm, func(d *libvirt.Domain) (struct{}, error) { return struct{}{}, f(d) })
	return err
}

// read is with for an f that finds something out.
func read[T any](ctx context.Context, conn *libvirt.Connect, vm string, f func(*libvirt.Domain) (T, error)) (T, error) {
	if err := ctx.Err(); err != nil {
		var none T
		return none, err
	}
	return call(ctx, conn, "work on VM", vm, func() (T, error) {
		d, err := lookup(conn, vm)
		if err != nil {
			var none T
			return none, err
		}
		defer d.Free()
		return f(d)
	})
}

func lookup(conn *libvirt.Connect, vm string) (*libvirt.Domain, error) {
	d, err := conn.LookupDomainByName(vm)
	if errors.Is(err, libvirt.ERR_NO_DOMAIN) && uuid.Validate(vm) == nil {
		d, err = conn.LookupDomainByUUIDString(vm)
	}
	if errors.Is(err, libvirt.ERR_NO_DOMAIN) {
		return nil, &Error{Object: "no VM " + vm + " on this host", Kind: ErrNotFound, Err: err}
	}
	return d, wrap("find VM", vm, err)
}

// Find describes the machine with a name or UUID.
//
// Similar to: virsh dominfo and domblklist.
func Find(ctx context.Context, conn *libvirt.Connect, vm string) (Info, error) {
	return read(ctx, conn, vm, inspect)
}

// List describes every machine of a host, by name.
//
// Similar to: virsh list --all.
func List(ctx context.Context, conn *libvirt.Connect) ([]Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return call(ctx, conn, "list", "VMs", func() ([]Info, error) { return list(conn) })
}

func list(conn *libvirt.Connect) ([]Info, error) {
	domains, err := conn.ListAllDomains(0)
	if err != nil {
		return nil, wrap("list", "VMs", err)
	}
	defer func() {
		for i := range domains {
			domains[i].Free()
		}
	}()
	all := []Info{}
	for i := range domains {
		info, err := inspect(&domains[i])
		if errors.Is(err, libvirt.ERR_NO_DOMAIN) {
			continue // it went while we looked
		}
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	slices.SortFunc(all, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func inspect(d *libvirt.Domain) (Info, error) {
	name, err := d.GetName()
	if err != nil {
		return Info{}, wrap("inspect", "VM", err)
	}
	id, err := d.GetUUIDString()
	if err != nil {
		return Info{}, wrap("inspect", name, err)
	}
	state, _, err := d.GetState()
	if err != nil {
		return Info{}, wrap("inspect", name, err)
	}
	text, err := d.GetXMLDesc(0)
	if err != nil {
		return Info{}, wrap("inspect", name, err)
	}
	x, err := parse(text)
	if err != nil {
		return Info{}, err
	}
	return Info{Name: name, UUID: id, State: states[state], Running: hasQEMU(state), Emulated: x.Type == "qemu", Disks: diskInfos(x)}, nil
}

func hasQEMU(s libvirt.DomainState) bool {
	return s != libvirt.DOMAIN_SHUTOFF && s != libvirt.DOMAIN_CRASHED && s != libvirt.DOMAIN_NOSTATE
}

// UsesSecret says whether a machine of a host has a disk that needs a libvirt
// secret, now or at its next start. A [Probe] that is not over yet has read it.
func UsesSecret(ctx context.Context, conn *libvirt.Connect, secret string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	domains, err := conn.ListAllDomains(0)
	if err != nil {
		return false, wrap("list", "VMs", err)
	}
	used := false
	for i := range domains {
		if name, err := domains[i].GetName(); err == nil && strings.HasPrefix(name, probePrefix) {
			domains[i].Free()
			continue
		}
		for _, flags := range []libvirt.DomainXMLFlags{0, libvirt.DOMAIN_XML_INACTIVE} {
			text, err := domains[i].GetXMLDesc(flags)
			used = used || err == nil && strings.Contains(text, secret)
		}
		domains[i].Free()
	}
	return used, nil
}

// Definition describes a machine and gives the XML that it is started from, without
// the passwords that may be in it.
//
// Similar to: virsh dumpxml --inactive --migratable.
func Definition(ctx context.Context, conn *libvirt.Connect, vm string) (info Info, xml string, err error) {
	type definition struct {
		info Info
		xml  string
	}
	is, err := read(ctx, conn, vm, func(d *libvirt.Domain) (is definition, err error) {
		if is.info, err = inspect(d); err != nil {
			return is, err
		}
		is.xml, err = d.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE)
		return is, wrap("read XML of", vm, err)
	})
	return is.info, is.xml, err
}
