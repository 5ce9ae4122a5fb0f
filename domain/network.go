// Networks of libvirt: whether a host has one, and copying it from another host.

package domain

import (
	"context"
	"errors"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// NetworkActive says whether a host's network is started; one that it does not have is
// [ErrNotFound].
//
// Similar to: virsh net-info.
func NetworkActive(ctx context.Context, conn *libvirt.Connect, name string) (bool, error) {
	return query(ctx, conn, "find", "network "+name, func() (bool, error) {
		n, err := conn.LookupNetworkByName(name)
		if err != nil {
			return false, err
		}
		defer func() { _ = n.Free() }()
		return n.IsActive()
	})
}

// StartNetwork starts a network that the host has; one that is started is fine.
//
// Similar to: virsh net-start.
func StartNetwork(ctx context.Context, conn *libvirt.Connect, name string) error {
	_, err := query(ctx, conn, "start", "network "+name, func() (struct{}, error) {
		n, err := conn.LookupNetworkByName(name)
		if err != nil {
			return struct{}{}, err
		}
		defer func() { _ = n.Free() }()
		if active, err := n.IsActive(); active || err != nil {
			return struct{}{}, err
		}
		return struct{}{}, n.Create()
	})
	return err
}

// CopyNetwork gives a host a network as another has it, started, and started with the
// host if it is so there. If it does not start nothing of it is left.
//
// Similar to: virsh net-dumpxml --inactive, net-define, net-start, net-autostart.
func CopyNetwork(ctx context.Context, from, to *libvirt.Connect, name string) error {
	type definition struct {
		xml       string
		autostart bool
	}
	is, err := query(ctx, from, "read", "network "+name, func() (is definition, err error) {
		n, err := from.LookupNetworkByName(name)
		if err != nil {
			return is, err
		}
		defer func() { _ = n.Free() }()
		if is.xml, err = n.GetXMLDesc(libvirt.NETWORK_XML_INACTIVE); err != nil {
			return is, err
		}
		is.autostart, err = n.GetAutostart()
		return is, err
	})
	if err != nil {
		return err
	}
	var xml libvirtxml.Network
	if err := xml.Unmarshal(is.xml); err != nil {
		return invalid("network "+name, "%v", err)
	}
	xml.UUID, xml.MAC = "", nil // they are the other's own
	text, err := xml.Marshal()
	if err != nil {
		return invalid("network "+name, "%v", err)
	}
	_, err = query(ctx, to, "define", "network "+name, func() (struct{}, error) {
		n, err := to.NetworkDefineXML(text)
		if err != nil {
			return struct{}{}, err
		}
		defer func() { _ = n.Free() }()
		if err := n.Create(); err != nil {
			return struct{}{}, errors.Join(err, n.Undefine())
		}
		return struct{}{}, n.SetAutostart(is.autostart)
	})
	return err
}
