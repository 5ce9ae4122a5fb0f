// The self-test: a lab that Up returns has stored an object and booted a guest.

package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

const (
	selfTestName = "vmdisk-lab-selftest"
	// bootDeadline is how long the guest may take: it is emulated, and the
	// machine may be busy.
	bootDeadline = 90 * time.Second
)

var guestSpeaks = regexp.MustCompile(`(?m)^oracle: (ready|FATAL).*$`)

// testCeph writes an object as the user of volumes and reads it back.
func (l *Lab) testCeph(ctx context.Context) error {
	file := l.ceph("selftest")
	defer os.Remove(file)
	want := []byte(l.FSID)
	if err := os.WriteFile(file, want, 0o600); err != nil {
		return err
	}
	var got []byte
	for _, args := range [][]string{{"put", "selftest", file}, {"get", "selftest", file + ".back"}, {"rm", "selftest"}} {
		if _, err := l.client(ctx, nil, "rados", "cinder", append([]string{"-p", "volumes"}, args...)...); err != nil {
			return fmt.Errorf("self-test: %w", err)
		}
	}
	defer os.Remove(file + ".back")
	got, err := os.ReadFile(file + ".back")
	if err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("self-test: an object came back as %q, not %q: %w", got, want, err)
	}
	return nil
}

// testGuest boots the guest on the first host, from an overlay, and waits until
// it says that a write was acknowledged.
func (l *Lab) testGuest(ctx context.Context) (err error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, bootDeadline)
	defer cancel()
	h := l.Hosts[0]
	overlay := filepath.Join(h.Dir, "selftest.qcow2")
	definition := filepath.Join(h.Dir, "selftest.xml")
	console := l.Console(h, selfTestName)
	defer func() {
		for _, f := range []string{overlay, definition, console.Path} {
			os.Remove(f)
		}
	}()
	if _, err := run(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-b", l.Guest, "-F", "raw", overlay); err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	if err := os.WriteFile(definition, []byte(selfTestXML(overlay)), 0o644); err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	if _, err := h.virsh(ctx, "create", definition); err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	if err := guestWorks(ctx, console); err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	if _, err := h.virsh(ctx, "destroy", selfTestName); err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	l.report("guest: boots on %s and writes: %.1f s", h.Name, time.Since(began).Seconds())
	return nil
}

// guestWorks waits for the guest to be ready and to have written.
func guestWorks(ctx context.Context, console *Console) error {
	said, err := console.Wait(ctx, guestSpeaks)
	if err != nil {
		return err
	}
	if said[1] != "ready" {
		return fmt.Errorf("the guest says: %s", said[0])
	}
	_, err = console.WaitAcked(ctx, "vda", 0)
	return err
}

// selfTestXML is a machine as small as one can be. The lab names its paths
// itself, and they have no character that XML would mind.
func selfTestXML(disk string) string {
	return fmt.Sprintf(`<domain type='qemu'>
  <name>%[1]s</name>
  <memory unit='MiB'>128</memory>
  <os><type arch='x86_64'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe'/>
      <source file='%[2]s'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='pty'>
      <log file='/var/log/libvirt/qemu/%[1]s-console.log' append='on'/>
    </serial>
    <memballoon model='none'/>
  </devices>
</domain>
`, selfTestName, disk)
}
