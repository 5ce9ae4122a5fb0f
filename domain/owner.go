// As whom a host's QEMU runs.

package domain

import (
	"context"
	"fmt"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// QEMUOwner is the user and the group that the host's machines run as, which
// libvirt knows better than qemu.conf: that may leave it to how libvirt was built.
//
// Similar to: virsh capabilities, the label of the security model dac.
func QEMUOwner(ctx context.Context, conn *libvirt.Connect) (uid, gid int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	text, err := conn.GetCapabilities()
	if err != nil {
		return 0, 0, wrap("read capabilities of", "host", err)
	}
	return parseOwner(text)
}

func parseOwner(capabilities string) (uid, gid int, err error) {
	var caps libvirtxml.Caps
	if err := caps.Unmarshal(capabilities); err != nil {
		return 0, 0, wrap("read capabilities of", "host", err)
	}
	for _, model := range caps.Host.SecModel {
		if model.Name != "dac" {
			continue
		}
		for _, label := range model.Labels {
			if _, err := fmt.Sscanf(label.Value, "+%d:+%d", &uid, &gid); err == nil {
				return uid, gid, nil
			}
		}
	}
	return 0, 0, &Error{Object: "libvirt", Kind: ErrNotFound, Reason: "does not tell which user QEMU runs as"}
}
