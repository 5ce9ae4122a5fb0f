// What a lab is doing: each part, where it is reached, and what the cluster says
// of itself.

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// statusTimeout is how long a cluster may take to tell of itself.
const statusTimeout = 5 * time.Second

// Status is what the parts of a lab do.
type Status struct {
	Dir  string `json:"dir"`
	FSID string `json:"fsid"`
	// Health is as in "ceph health detail", or what kept it from being asked.
	Health string `json:"health"`
	// Parts are the daemons and the QEMUs of running machines.
	Parts []PartStatus `json:"parts"`
}

// PartStatus is what one part does.
type PartStatus struct {
	Name string `json:"name"`
	// PID is 0 if the part is dead.
	PID   int       `json:"pid"`
	State Condition `json:"state"`
	// Addr is where it is reached: an address of Ceph, a libvirt URI, or "".
	Addr string `json:"addr,omitempty"`
	// Fault is why it does not do its work, or "".
	Fault string `json:"fault,omitempty"`
}

// Healthy says whether every part runs and answers and the cluster is HEALTH_OK.
func (s Status) Healthy() bool {
	for _, p := range s.Parts {
		if p.State != Running || p.Fault != "" {
			return false
		}
	}
	return s.Health == "HEALTH_OK"
}

// Status looks at every part of the lab. It takes half a second, and up to 5 s
// when the monitor does not answer.
func (l *Lab) Status(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	s := Status{Dir: l.Dir, FSID: l.FSID}
	if err := l.state.refresh(); err != nil {
		s.Health = err.Error()
		return s
	}
	addrs := l.addresses(ctx)
	processes := l.state.processes()
	for _, name := range l.parts() {
		p := processes[name]
		ps := PartStatus{Name: name, State: p.condition(), Addr: addrs[name]}
		if ps.State != Dead {
			ps.PID = p.PID
		}
		if err := l.partAnswers(ctx, name); ps.State == Running && err != nil {
			ps.Fault = err.Error()
		}
		s.Parts = append(s.Parts, ps)
	}
	for _, h := range l.Hosts {
		ms, _ := h.machines()
		for _, m := range ms {
			s.Parts = append(s.Parts, PartStatus{Name: h.part("qemu/" + m.name), PID: m.process.PID, State: m.process.condition()})
		}
	}
	s.Health = l.health(ctx)
	return s
}

// parts returns the names of the lab's daemons in the order they are shown.
func (l *Lab) parts() []string {
	names := []string{partMon, partMgr}
	for i := range l.state.OSDs {
		names = append(names, partOSD(i))
	}
	for _, h := range l.Hosts {
		names = append(names, h.part("holder"), h.part("virtlogd"), h.part("libvirtd"))
	}
	return names
}

// partAnswers says why a running part does not do its work, or nil.
func (l *Lab) partAnswers(ctx context.Context, part string) error {
	host, daemon, isHost := strings.Cut(part, "/")
	if !isHost {
		return l.cephAnswers(ctx, part)
	}
	for _, h := range l.Hosts {
		if h.Name == host && daemon == "libvirtd" {
			return h.listens()
		}
	}
	return nil
}

// sick says why the lab is not one to hand out, or nil. It is quick: it asks
// each daemon, and runs no program.
func (l *Lab) sick(ctx context.Context) error {
	switch {
	case l.state.Phase != phaseUp:
		return errors.New("it was never finished")
	case l.state.Boot != bootID():
		return errors.New("the machine was restarted")
	}
	if _, err := os.Stat(l.Guest); err != nil {
		return err
	}
	processes := l.state.processes()
	for _, name := range l.parts() {
		if c := processes[name].condition(); c != Running {
			return fmt.Errorf("%s is %s", name, c)
		}
		if err := l.partAnswers(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// health returns what the cluster says of itself.
func (l *Lab) health(ctx context.Context) string {
	if c := l.Mon().Condition(); c != Running {
		return fmt.Sprintf("unknown: the monitor is %s", c)
	}
	out, err := l.cephCommand(ctx, "health", "detail")
	if err != nil {
		return "unknown: " + err.Error()
	}
	return strings.TrimSpace(string(out))
}

// addresses returns where the parts are reached, as far as that is known.
func (l *Lab) addresses(ctx context.Context) map[string]string {
	addrs := map[string]string{partMon: l.monAddr()}
	for _, h := range l.Hosts {
		addrs[h.part("libvirtd")] = h.URI
	}
	if l.Mon().Condition() != Running {
		return addrs
	}
	out, err := l.cephCommand(ctx, "osd", "dump", "--format", "json")
	if err != nil {
		return addrs
	}
	var dump struct {
		OSDs []struct {
			ID   int    `json:"osd"`
			Addr string `json:"public_addr"`
		} `json:"osds"`
	}
	if json.Unmarshal(out, &dump) == nil {
		for _, o := range dump.OSDs {
			addr, _, _ := strings.Cut(o.Addr, "/")
			addrs[partOSD(o.ID)] = addr
		}
	}
	return addrs
}
