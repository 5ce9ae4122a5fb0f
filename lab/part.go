// Faults: any part of the lab can be stopped, killed, frozen, thawed and started
// again.

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Condition is what a part's process does.
type Condition string

// The conditions.
const (
	Running Condition = "running"
	Frozen  Condition = "frozen"
	Dead    Condition = "dead"
)

// Part is a daemon of the lab, the QEMU of a machine, or all of a host. It is a
// value: after a Start it stands for the new process. Its methods block until
// what they do is done, and fail if ctx ends first.
type Part struct {
	// Name is such as "osd.0", "compute1/libvirtd" or "compute1/qemu/web1".
	Name string

	lab *Lab
	// find returns the processes that the part is made of.
	find func() ([]process, error)
	// begin starts it again; nil if the lab did not start it.
	begin func(context.Context) error
	// revive is what it takes besides SIGCONT to go on; nil if nothing.
	revive func(context.Context) error
}

// Mon returns the cluster's monitor.
func (l *Lab) Mon() Part { return l.cephPart(partMon) }

// Mgr returns the cluster's manager.
func (l *Lab) Mgr() Part { return l.cephPart(partMgr) }

// OSD returns the OSD with an id from 0 on.
func (l *Lab) OSD(id int) Part {
	p := l.cephPart(partOSD(id))
	// An OSD that slept waits for its peers to renew its read lease, and the only
	// one of a cluster has none that would: its requests hang for good. Marked
	// down, it comes up again and asks anew.
	p.revive = func(ctx context.Context) error {
		if l.Mon().Condition() != Running {
			return nil
		}
		_, err := l.cephCommand(ctx, "osd", "down", strconv.Itoa(id))
		return err
	}
	return p
}

func (l *Lab) cephPart(name string) Part {
	return l.daemonPart(name, func() daemon { return l.cephDaemon(name) })
}

// Libvirtd returns the host's libvirtd. Its guests run on without it.
func (h *Host) Libvirtd() Part { return h.lab.daemonPart(h.part("libvirtd"), h.libvirtd) }

// QEMU returns the process of a running machine, by name or UUID. It does not
// ask libvirtd, which may be dead. It cannot be started: libvirt does that.
func (h *Host) QEMU(domain string) (Part, error) {
	ms, err := h.machines()
	if err != nil {
		return Part{}, err
	}
	for _, m := range ms {
		if m.name == domain || m.uuid == domain {
			find := func() ([]process, error) { return []process{m.process}, nil }
			return Part{Name: h.part("qemu/" + m.name), lab: h.lab, find: find}, nil
		}
	}
	return Part{}, fmt.Errorf("lab: no machine %s runs on %s", domain, h.Name)
}

// Whole returns all of the host: libvirtd, virtlogd and every QEMU. To kill it
// is a power cut; to start it again is a boot, with an empty /run/libvirt.
func (h *Host) Whole() Part {
	return Part{Name: h.Name, lab: h.lab, find: h.processes, begin: h.boot}
}

// daemonPart returns a part that the lab started itself.
func (l *Lab) daemonPart(name string, d func() daemon) Part {
	find := func() ([]process, error) {
		if err := l.state.refresh(); err != nil {
			return nil, err
		}
		if p, ok := l.state.processes()[name]; ok {
			return []process{p}, nil
		}
		return nil, fmt.Errorf("lab: there is no %s", name)
	}
	begin := func(ctx context.Context) error { return l.start(ctx, d()) }
	return Part{Name: name, lab: l, find: find, begin: begin}
}

// PID returns the part's process id, of a whole host any one, or 0 if it is dead.
func (p Part) PID() int {
	ps, _ := p.find()
	for _, q := range ps {
		if q.condition() != Dead {
			return q.PID
		}
	}
	return 0
}

// Condition says whether the part runs, is frozen or is dead. A whole host is
// as its liveliest process is.
func (p Part) Condition() Condition {
	ps, _ := p.find()
	worst := Dead
	for _, q := range ps {
		switch q.condition() {
		case Running:
			return Running
		case Frozen:
			worst = Frozen
		}
	}
	return worst
}

// Stop asks the part to end, with SIGTERM, and waits until it has. A frozen one
// is thawed for it.
func (p Part) Stop(ctx context.Context) error {
	return p.end(ctx, syscall.SIGTERM, syscall.SIGCONT)
}

// Kill ends the part with SIGKILL and waits until it is gone. A dead one stays
// dead, which is no error.
func (p Part) Kill(ctx context.Context) error { return p.end(ctx, syscall.SIGKILL) }

// Freeze stops the part in the middle of what it does, with SIGSTOP: to the
// others it looks like a host that hangs.
func (p Part) Freeze(ctx context.Context) error {
	return p.each(ctx, func(q process) error { return q.become(ctx, Frozen, syscall.SIGSTOP) })
}

// Thaw lets a frozen part go on, with SIGCONT.
func (p Part) Thaw(ctx context.Context) error {
	err := p.each(ctx, func(q process) error { return q.become(ctx, Running, syscall.SIGCONT) })
	if err == nil && p.revive != nil {
		err = p.revive(ctx)
	}
	return err
}

// Start starts a dead part again and waits until it answers. A running part is
// left alone; a frozen one is an error.
func (p Part) Start(ctx context.Context) error {
	if p.begin == nil {
		return fmt.Errorf("lab: %s cannot be started here: start the machine with libvirt", p.Name)
	}
	if err := p.lab.state.refresh(); err != nil {
		return err
	}
	lock, err := waitLock(ctx, filepath.Join(p.lab.Dir, lockName))
	if err != nil {
		return fmt.Errorf("lab: %s: %w", p.lab.Dir, err)
	}
	defer lock.release()
	if err := p.lab.state.refresh(); err != nil {
		return err
	}
	switch p.Condition() {
	case Running:
		return nil
	case Frozen:
		return fmt.Errorf("lab: %s is frozen: thaw it", p.Name)
	}
	if err := p.begin(ctx); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// end sends signals to all of the part's processes, then waits for all to die.
func (p Part) end(ctx context.Context, signals ...syscall.Signal) error {
	ps, err := p.find()
	if err != nil {
		return err
	}
	var errs []error
	for _, q := range ps {
		for _, sig := range signals {
			errs = append(errs, q.signal(sig))
		}
	}
	for _, q := range ps {
		errs = append(errs, q.gone(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab: %s: %w", p.Name, err)
	}
	return nil
}

// each calls f with each living process of the part.
func (p Part) each(ctx context.Context, f func(process) error) error {
	ps, err := p.find()
	if err != nil {
		return err
	}
	alive := false
	for _, q := range ps {
		if q.condition() == Dead {
			continue
		}
		alive = true
		err := f(q)
		if len(ps) > 1 && q.condition() == Dead {
			continue // it was killed before, and dies when it may
		}
		if err != nil {
			return fmt.Errorf("lab: %s: %w", p.Name, err)
		}
	}
	if !alive {
		return fmt.Errorf("lab: %s is dead", p.Name)
	}
	return ctx.Err()
}

// become sends a signal and waits for the condition that it leads to.
func (p process) become(ctx context.Context, want Condition, sig syscall.Signal) error {
	if err := p.signal(sig); err != nil {
		return err
	}
	return until(ctx, func() error {
		switch c := p.condition(); c {
		case want:
			return nil
		case Dead:
			return final(fmt.Errorf("pid %d is dead", p.PID))
		default:
			return fmt.Errorf("pid %d is %s", p.PID, c)
		}
	})
}

// boot starts the host's daemons as after a power cut.
func (h *Host) boot(ctx context.Context) error {
	holder := h.lab.state.process(h.part("holder"))
	if h.lab.hostOf(holder.PID) != h.Name {
		return fmt.Errorf("%s: its namespaces are gone", h.Name)
	}
	run := fmt.Sprintf("/proc/%d/root/run/libvirt", holder.PID)
	if err := errors.Join(os.RemoveAll(run), os.Mkdir(run, 0o755)); err != nil {
		return err
	}
	return h.startDaemons(ctx)
}

// processes returns what runs on the host, but for what keeps its namespaces.
func (h *Host) processes() ([]process, error) {
	if err := h.lab.state.refresh(); err != nil {
		return nil, err
	}
	holder := h.lab.state.process(h.part("holder"))
	var ps []process
	err := eachProcess(func(pid int) {
		if pid == holder.PID || h.lab.hostOf(pid) != h.Name {
			return
		}
		if p, err := identify(pid); err == nil {
			ps = append(ps, p)
		}
	})
	return ps, err
}

// machine is a QEMU that runs on a host.
type machine struct {
	name, uuid string
	process    process
}

// machines returns the machines that run on the host, told from other processes
// by their command lines.
func (h *Host) machines() ([]machine, error) {
	ps, err := h.processes()
	if err != nil {
		return nil, err
	}
	var ms []machine
	for _, p := range ps {
		b, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(p.PID), "cmdline"))
		if err != nil {
			continue
		}
		if m := parseQEMU(b); m.uuid != "" {
			m.process = p
			ms = append(ms, m)
		}
	}
	return ms, nil
}

// parseQEMU reads a machine's name and UUID from its QEMU's command line.
func parseQEMU(cmdline []byte) (m machine) {
	args := bytes.Split(cmdline, []byte{0})
	for i := 0; i+1 < len(args); i++ {
		value := string(args[i+1])
		switch string(args[i]) {
		case "-uuid":
			m.uuid = value
		case "-name":
			// guest=NAME,debug-threads=on with each comma of NAME doubled.
			value = strings.ReplaceAll(strings.TrimPrefix(value, "guest="), ",,", "\x00")
			value, _, _ = strings.Cut(value, ",")
			m.name = strings.ReplaceAll(value, "\x00", ",")
		}
	}
	return m
}
