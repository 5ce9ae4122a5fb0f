// Why: who has a machine's disks, what the hosts say of it, and what to do.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
)

// Why is all that is known of who has a machine's disks.
type Why struct {
	VM         string        `json:"vm"`
	UUID       string        `json:"uuid"`
	Record     *disk.Machine `json:"record"` // nil if there is none
	Hosts      []WhyHost     `json:"hosts"`  // this host first
	Disks      []WhyDisk     `json:"disks"`
	Operations []Operation   `json:"operations"`
	Checks     []WhyCheck    `json:"checks"`
	Verdict    string        `json:"verdict"`
	Next       string        `json:"next"` // what to type, or ""
}

// WhyHost is what a host's libvirt says.
type WhyHost struct {
	Host    string `json:"host"`
	URI     string `json:"uri"`
	State   string `json:"state"` // as virsh domstate --reason says it, or "does not answer"
	Defined bool   `json:"defined"`
	Running bool   `json:"running"`
	PIDs    []int  `json:"pids"` // of its QEMUs, as far as they can be seen from here
	Error   string `json:"error,omitempty"`

	condition domain.Condition
}

// WhyDisk is one of its disks and who uses it.
type WhyDisk struct {
	Pool   string    `json:"pool"`
	Image  string    `json:"image"`
	Parent string    `json:"parent,omitempty"`
	Users  []WhyUser `json:"users"`
	Error  string    `json:"error,omitempty"`
}

// WhyUser is a client of a disk.
type WhyUser struct {
	Addr    string `json:"address"`
	Client  string `json:"client,omitempty"`
	Watches bool   `json:"watches"`
	Locks   bool   `json:"locks"`
	Fenced  bool   `json:"fenced"`
	Who     string `json:"who"` // as far as records and journal know
	Known   bool   `json:"known"`
}

// WhyCheck is something that a start needs.
type WhyCheck struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Why answers who has a machine's disks open and locked, from which host and
// process; which workflows are under way; what this host's libvirt says, and that of
// the host in its record; who of its clients is fenced; whether what it needs to
// start is there; and what to do. It changes nothing. A host that does not answer
// costs three seconds.
//
// Similar to: rbd status, rbd lock ls, ceph osd blocklist ls, virsh domstate.
func (h *Host) Why(ctx context.Context, vm string) (Why, error) {
	w := &why{h: h, Why: Why{VM: vm, Hosts: []WhyHost{}, Disks: []WhyDisk{}, Operations: []Operation{}, Checks: []WhyCheck{}}}
	defer w.end()
	if err := w.gather(ctx); err != nil {
		return w.Why, failed("why", vm, err)
	}
	w.judge()
	return w.Why, nil
}

// why is the state of the question.
type why struct {
	session
	Why
	h      *Host
	fences []disk.Fenced
	images []disk.Name
}

func (w *why) gather(ctx context.Context) (err error) {
	if w.cluster, err = w.h.Cluster(ctx); err != nil {
		return err
	}
	noHost := w.openHost(ctx, w.h)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := w.identify(ctx, noHost); err != nil {
		return err
	}
	if err := w.askHosts(ctx, noHost); err != nil {
		return err
	}
	if w.fences, err = w.cluster.Fences(ctx); err != nil {
		return err
	}
	if err := w.operations(ctx); err != nil {
		return err
	}
	for _, n := range w.images {
		d, err := w.disk(ctx, n)
		if err != nil {
			return err
		}
		w.Disks = append(w.Disks, d)
	}
	return w.checks(ctx, noHost)
}

// identify finds the machine: here, in its record, or by its disk alone.
func (w *why) identify(ctx context.Context, noHost error) error {
	key, missing := w.VM, noHost
	if noHost == nil {
		info, err := findOwn(ctx, w.cluster, w.conn, w.VM)
		if err != nil && !errors.Is(err, domain.ErrNotFound) {
			return err
		}
		missing = err
		if err == nil {
			w.VM, w.UUID, key = info.Name, info.UUID, info.UUID
			for _, d := range info.Disks {
				if d.Pool != "" {
					w.images = append(w.images, disk.Name{Pool: d.Pool, Image: d.Image})
				}
			}
		}
	}
	m, err := w.cluster.FindMachine(ctx, w.h.cfg.VMPool, key)
	switch {
	case err == nil:
		w.Record, w.VM, w.UUID = &m, m.Name, m.UUID
	case !errors.Is(err, disk.ErrNotFound):
		return err
	case w.UUID == "":
		w.UUID = w.VM
	}
	m.UUID = w.UUID
	more, err := w.h.imagesOf(ctx, w.cluster, m)
	for _, n := range more {
		if !slices.Contains(w.images, n) {
			w.images = append(w.images, n)
		}
	}
	if err == nil && w.Record == nil && len(w.images) == 0 {
		return missing // nothing is known of it
	}
	return err
}

// askHosts asks this host's libvirt and that of the record.
func (w *why) askHosts(ctx context.Context, noHost error) error {
	here := WhyHost{Host: w.host, URI: w.h.cfg.URI, PIDs: []int{}}
	if noHost != nil {
		here.Host, here.State, here.Error = "this host", "does not answer", noHost.Error()
	} else {
		c, err := domain.Inspect(ctx, w.conn, w.UUID)
		switch {
		case err == nil:
			here.State, here.Defined, here.Running, here.condition = c.State, true, c.Running, c
		case errors.Is(err, domain.ErrNotFound):
			here.State = "not defined"
		default:
			return err
		}
	}
	w.Hosts = append(w.Hosts, here)
	if w.Record != nil && w.Record.Host != w.host {
		w.Hosts = append(w.Hosts, w.askOther(ctx))
	}
	for _, p := range domain.Processes(w.UUID) {
		for i := range w.Hosts {
			if sameHost(p.Host, w.Hosts[i].Host) {
				w.Hosts[i].PIDs = append(w.Hosts[i].PIDs, p.PID)
			}
		}
	}
	return ctx.Err()
}

func (w *why) askOther(ctx context.Context) WhyHost {
	other := WhyHost{Host: w.Record.Host, PIDs: []int{}}
	var a domain.Answer
	var err error
	if other.URI, err = w.h.uriOf(*w.Record, ""); err == nil {
		a, err = domain.Ask(ctx, other.URI, w.UUID, askTimeout)
	}
	switch {
	case err != nil:
		other.State, other.Error = "does not answer", err.Error()
	case a.Host != other.Host:
		other.State, other.Error = "is not known", other.URI+" is "+a.Host
	default:
		other.State, other.Defined, other.Running, other.condition = a.State, a.Defined, a.Running, a.Condition
	}
	return other
}

// operations are those that have a lease of the machine or of one of its disks.
func (w *why) operations(ctx context.Context) error {
	for _, pool := range w.h.pools() {
		all, err := w.cluster.Operations(ctx, pool)
		if errors.Is(err, disk.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		for i := range all {
			o := &all[i]
			if !slices.ContainsFunc(o.Leases, w.isOurs) && !touches(o, w.UUID) {
				continue
			}
			alive, err := w.cluster.Alive(ctx, o)
			if err != nil {
				return err
			}
			found := Operation{Operation: *o, In: pool, Remedies: []string{},
				State: map[disk.Presence]string{disk.Present: UnderWay, disk.Silent: Silent, disk.Gone: Interrupted}[alive]}
			if p, err := parsePlan(o); err == nil {
				for _, a := range remedies(p) {
					found.Remedies = append(found.Remedies, a.String())
				}
			}
			w.Operations = append(w.Operations, found)
		}
	}
	return nil
}

func (w *why) isOurs(lease string) bool {
	_, name, _ := strings.Cut(lease, "/")
	return name == w.VM || name == w.UUID ||
		slices.ContainsFunc(w.images, func(n disk.Name) bool { return n.String() == lease })
}

// disk says who uses one disk.
func (w *why) disk(ctx context.Context, n disk.Name) (WhyDisk, error) {
	d := WhyDisk{Pool: n.Pool, Image: n.Image, Users: []WhyUser{}}
	use, err := w.cluster.Use(ctx, n)
	if errors.Is(err, disk.ErrNotFound) {
		d.Error = "is not there"
		return d, nil
	}
	if err != nil {
		return d, err
	}
	if from, err := w.cluster.Parent(ctx, n); err != nil {
		d.Error = "its parent: " + err.Error()
	} else if from.Image != "" {
		d.Parent = from.String()
	}
	for _, addr := range use.Addrs() {
		u := WhyUser{Addr: addr, Locks: addr == use.Lock, Fenced: isFenced(w.fences, addr)}
		for _, watcher := range use.Watchers {
			if watcher.Addr == addr {
				u.Client, u.Watches = watcher.Client, true
			}
		}
		u.Who, u.Known = w.who(addr)
		d.Users = append(d.Users, u)
	}
	return d, nil
}

// who is a client, as far as record and journal know.
func (w *why) who(addr string) (who string, known bool) {
	for _, o := range w.Operations {
		if o.Holder.Addr == addr || slices.Contains(o.Holder.Also, addr) {
			return fmt.Sprintf("vmdisk %s, pid %d on %s", o.Kind, o.Holder.PID, o.Holder.Host), true
		}
	}
	if w.Record == nil {
		return "not known to vmdisk", false
	}
	if slices.Contains(w.Record.Clients, addr) {
		for _, host := range w.Hosts {
			if host.Host == w.Record.Host && len(host.PIDs) > 0 {
				return fmt.Sprintf("its QEMU on %s, pid %d", host.Host, host.PIDs[0]), true
			}
		}
		return "its QEMU on " + w.Record.Host, true
	}
	for _, b := range w.Record.Behind {
		if slices.Contains(b.Fenced, addr) {
			return "its QEMU that was left on " + b.Host, true
		}
	}
	return "not known to vmdisk", false
}

// checkRoom says which pools of the machine's disks are full: its guest waits.
func (w *why) checkRoom(ctx context.Context) error {
	full, err := w.cluster.FullPools(ctx)
	if err != nil {
		return err
	}
	full = slices.DeleteFunc(full, func(pool string) bool {
		return !slices.ContainsFunc(w.images, func(n disk.Name) bool { return n.Pool == pool })
	})
	room := WhyCheck{"room", len(full) == 0, "none of its pools is full"}
	if !room.OK {
		room.Detail = "full: pool " + strings.Join(full, ", ") + "; what writes there waits, what removes does not"
	}
	w.Checks = append(w.Checks, room)
	return nil
}

// checks are what a start needs.
func (w *why) checks(ctx context.Context, noHost error) error {
	may, err := w.cluster.MayFence(ctx)
	if err != nil {
		return err
	}
	caps := WhyCheck{"caps", may, "client." + w.cluster.User() + " may break a dead client's lock"}
	if !may {
		caps.Detail = "client." + w.cluster.User() + " may not break a dead client's lock: it needs mon 'profile rbd'"
	}
	record := WhyCheck{"record", w.Record != nil, "its definition is in Ceph"}
	if w.Record == nil {
		record.Detail = "there is none: it could not be evacuated; vmdisk start or stop writes one"
	}
	w.Checks = append(w.Checks, caps, record)
	if err := w.checkRoom(ctx); err != nil {
		return err
	}
	if noHost != nil {
		return nil
	}
	there, err := secret.Exists(w.conn, w.h.secretUUID(w.cluster), w.cluster.User())
	if err != nil {
		return err
	}
	s := WhyCheck{"secret", there, "libvirt on " + w.host + " has the key of client." + w.cluster.User()}
	if !there {
		s.Detail = "libvirt on " + w.host + " has no key of client." + w.cluster.User() + "; vmdisk start sets it"
	}
	w.Checks = append(w.Checks, s)
	return nil
}
