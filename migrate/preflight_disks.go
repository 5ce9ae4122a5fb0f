// Whether the destination can open the machine's disks, and whether they are these:
// its own QEMU does it.

package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirtxml"
)

// opening is one of the machine's disks that the destination opens.
type opening struct {
	name string // POOL/IMAGE
	disk libvirtxml.DomainDisk
}

// checkOpens has the destination's QEMU open all disks of the machine in Ceph, as
// they would be opened there: that its librbd is there, that it has the ceph.conf,
// that its secret is right, that it reaches monitors and OSDs. One probe does it. If
// that fails, each is tried by itself.
func (q *inquiry) checkOpens(ctx context.Context) (all []Check, ended []<-chan error) {
	const name = "disks open"
	var disks []opening
	found, names := domain.CephDisks(q.xml)
	for i := range found {
		disks = append(disks, opening{names[i], readOnly(found[i])})
	}
	if len(disks) == 0 {
		return []Check{pass(name, "it has none in Ceph")}, nil
	}
	if q.Secret != nil && !q.Secret.OK {
		return []Check{warn(name, "not asked: %s has no secret to open them with", q.To.Hostname)}, nil
	}
	limit := q.limit()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	watch := q.identify(ctx, found, names)
	end, err := q.probe(ctx, watch.during, watch.last(disks)...)
	ended = append(ended, end)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return []Check{q.hangs(disks, limit)}, ended
	case err == nil:
		all = []Check{pass(name, "QEMU on %s opens %s", q.To.Hostname, count(disks))}
		return append(all, watch.check()...), ended
	}
	return q.checkEach(ctx, disks, limit, err, ended)
}

// readOnly is a disk that is opened without a watch on its image, which a QEMU that
// fails at the next disk would leave for 30 s. That the user may write there the
// source shows.
func readOnly(d libvirtxml.DomainDisk) libvirtxml.DomainDisk {
	d.ReadOnly = &libvirtxml.DomainDiskReadOnly{}
	return d
}

func (q *inquiry) probe(ctx context.Context, during func(context.Context), disks ...opening) (<-chan error, error) {
	t := domain.Trial{VirtType: q.hw.VirtType, Arch: q.hw.Arch, Emulator: q.there().Emulator}
	for _, d := range disks {
		t.Disks = append(t.Disks, d.disk)
	}
	return domain.Probe(ctx, q.Dest, t, during)
}

// hangs is the answer of a QEMU that has not opened the disks in time.
func (q *inquiry) hangs(disks []opening, limit time.Duration) Check {
	return fail("disks open", domain.ErrTimeout, "QEMU on %s did not get to open %s within %v", q.To.Hostname, count(disks), limit).
		on(q.To.Hostname, "does it reach the monitors?  ceph --id %s -s", user(disks[0].disk))
}

// together is how many probes run at once.
const together = 4

// checkEach tries disk by disk.
func (q *inquiry) checkEach(ctx context.Context, disks []opening, limit time.Duration, cause error, ended []<-chan error) ([]Check, []<-chan error) {
	all := make([]Check, len(disks))
	var group sync.WaitGroup
	var mu sync.Mutex
	turn := make(chan struct{}, together)
	for i, d := range disks {
		group.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			err := cause
			if len(disks) > 1 {
				var end <-chan error
				end, err = q.probe(ctx, nil, d)
				mu.Lock()
				ended = append(ended, end)
				mu.Unlock()
			}
			bare, conf := domain.WithoutConf(d.disk)
			switch {
			case err == nil:
				all[i] = pass("disks open", "QEMU on %s opens %s", q.To.Hostname, d.name)
				return
			case errors.Is(err, context.DeadlineExceeded):
				all[i] = q.hangs([]opening{d}, limit)
				return
			}
			all[i] = fail("disks open", errors.Join(ErrUnfit, err), "QEMU on %s cannot open %s: %s", q.To.Hostname, d.name, reason(err)).
				on(q.To.Hostname, "to see why:  rbd --id %s info %s", user(d.disk), d.name)
			if conf == "" {
				return
			}
			end, err := q.probe(ctx, nil, opening{d.name, bare})
			mu.Lock()
			ended = append(ended, end)
			mu.Unlock()
			if err == nil { // so it is the file
				all[i].Name = "ceph.conf"
				all[i] = all[i].on(q.To.Hostname, "put %s's %s there", q.From.Hostname, conf)
			}
		})
	}
	group.Wait()
	if i := slices.IndexFunc(all, func(c Check) bool { return !c.OK }); i < 0 { // each by itself, but not all at once
		all = append(all, fail("disks open", errors.Join(ErrUnfit, cause), "QEMU on %s cannot open all of %s at once: %s", q.To.Hostname, count(disks), reason(cause)))
	}
	return alike(all), ended
}

// alike says once what is wrong with several disks for one reason: no ceph.conf.
func alike(all []Check) []Check {
	var kept []Check
	for _, c := range all {
		if c.Name == "ceph.conf" && slices.ContainsFunc(kept, func(k Check) bool { return k.Cure == c.Cure }) {
			continue
		}
		kept = append(kept, c)
	}
	return kept
}

func count(disks []opening) string {
	if len(disks) == 1 {
		return disks[0].name
	}
	return fmt.Sprintf("all %d disks", len(disks))
}

// user is the cephx user of a disk.
func user(d libvirtxml.DomainDisk) string {
	if d.Auth != nil {
		return d.Auth.Username
	}
	if d.Source.Network.Auth != nil {
		return d.Source.Network.Auth.Username
	}
	return "admin"
}

// identity finds out whether what the destination opens is what the cluster FSID has:
// then a client more has it open there. That monitors of the same addresses and images
// of the same names are somewhere proves nothing.
type identity struct {
	*inquiry
	image  string // or "" if none is asked about
	disk   libvirtxml.DomainDisk
	before []string
	after  []string
	err    error
}

// identify chooses the first disk that is not read-only, and looks who has it open.
func (q *inquiry) identify(ctx context.Context, disks []libvirtxml.DomainDisk, names []string) *identity {
	w := &identity{inquiry: q}
	for i, d := range disks {
		_, conf := domain.WithoutConf(d)
		if q.Clients != nil && conf == q.Conf && d.ReadOnly == nil && d.Device != "cdrom" && d.Source.Network.Snapshot == nil {
			w.image, w.disk = names[i], d
			w.before, w.err = q.Clients(ctx, w.image)
			break
		}
	}
	return w
}

// last has the disk that is opened for writing after all others.
func (w *identity) last(disks []opening) []opening {
	var all []opening
	for _, d := range disks {
		if d.name != w.image {
			all = append(all, d)
		}
	}
	if w.image != "" {
		all = append(all, opening{w.image, w.disk})
	}
	return all
}

func (w *identity) during(ctx context.Context) {
	if w.image != "" && w.err == nil {
		w.after, w.err = w.Clients(ctx, w.image)
	}
}

func (w *identity) check() []Check {
	const name = "same cluster"
	switch {
	case w.image == "":
		return nil
	case w.err != nil:
		return []Check{fail(name, w.err, "who has %s open cannot be asked: %v", w.image, w.err)}
	}
	for _, client := range w.after {
		if !slices.Contains(w.before, client) {
			return []Check{pass(name, "%s, as %s", w.FSID, client)}
		}
	}
	return []Check{fail(name, ErrUnfit, "%s opens a %s, but not that of cluster %s", w.To.Hostname, w.image, w.FSID).
		on(w.To.Hostname, "ceph -c FILE fsid, with the ceph.conf that the machine's disks name")}
}
