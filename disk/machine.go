// What is known of a machine beside its disks, so that it can be started elsewhere
// when its host cannot be asked any more.

package disk

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/google/uuid"
)

// All of a pool's are in the omap of one object: a list of a thousand is one read.
const (
	machinesObject = "vmdisk.machines"
	machineKey     = "vm."  // followed by the UUID: all but the definition
	definitionKey  = "xml." // followed by the UUID
)

// Machine is a machine as it was when vmdisk last changed it.
type Machine struct {
	UUID string `json:"uuid"`
	Name string `json:"name"`
	Host string `json:"host"` // the name of the host that defines it
	// URI is that host's libvirt as it was reached, "" if that was from itself.
	URI string `json:"uri,omitempty"`
	// Generation is raised whenever the machine goes to another host. What knows
	// only a lower one has been left behind.
	Generation int  `json:"generation"`
	Running    bool `json:"running"`
	// Clients are the addresses from which its QEMU has its images open, IP:PORT/NONCE.
	Clients []string `json:"clients"`
	// Behind are the hosts that it was taken from without their consent.
	Behind  []Behind  `json:"behind,omitempty"`
	Updated time.Time `json:"updated"`
	// XML is its definition in libvirt; empty in a list.
	XML string `json:"-"`
}

// Behind is a host that a machine was taken from while it did not answer. It may
// still define the machine, and a QEMU there may sleep: it is kept from the cluster.
type Behind struct {
	Host   string    `json:"host"`
	Since  time.Time `json:"since"`
	Fenced []string  `json:"fenced"` // addresses, IP:PORT/NONCE
	// Dead is a QEMU that is proven to be: the fences can be lifted.
	Dead bool `json:"dead"`
}

func (m Machine) behind(host string) *Behind {
	for i := range m.Behind {
		if m.Behind[i].Host == host {
			return &m.Behind[i]
		}
	}
	return nil
}

// LeftBehind is what is known of a host that may still have a guest that was taken
// from it, or nil.
func (m Machine) LeftBehind(host string) *Behind {
	if b := m.behind(host); b != nil && !b.Dead {
		return b
	}
	return nil
}

// Leave notes, before they are fenced, which clients of a host are going to be.
func (m *Machine) Leave(host string, fenced []string) {
	m.Behind = slices.Clone(m.Behind) // the record that was read stays what it was
	b := m.behind(host)
	if b == nil {
		m.Behind = append(m.Behind, Behind{Host: host})
		b = &m.Behind[len(m.Behind)-1]
	}
	b.Since, b.Dead = time.Now().UTC().Truncate(time.Second), false
	b.Fenced = slices.Concat(b.Fenced, fenced)
	slices.Sort(b.Fenced)
	b.Fenced = slices.Compact(b.Fenced)
}

// Bury notes that nothing of the machine lives on a host any more but what still is
// fenced; with nothing fenced the host is forgotten.
func (m *Machine) Bury(host string, still []string) {
	m.Behind = slices.Clone(m.Behind)
	if b := m.behind(host); b != nil {
		b.Dead, b.Fenced = true, still
	}
	m.Behind = slices.DeleteFunc(m.Behind, func(b Behind) bool { return b.Dead && len(b.Fenced) == 0 })
}

// SaveMachine writes down what a machine is now. A record of another host with the
// same or a higher generation is [ErrTaken] and stays.
func (c *Cluster) SaveMachine(ctx context.Context, pool string, m Machine) error {
	m.Updated = time.Now().UTC().Truncate(time.Second)
	now, err := json.Marshal(m)
	if err != nil {
		return err
	}
	key := machineKey + m.UUID
	return c.pool(ctx, pool, func(io *rados.IOContext) error {
		for ctx.Err() == nil {
			was, old, err := readMachine(io, m.UUID)
			switch {
			case err != nil:
				return err
			case old != nil && was.Host != m.Host && was.Generation >= m.Generation:
				return &Error{Op: "record", Object: "VM " + m.Name, Kind: ErrInUse, Err: ErrTaken, Reason: "is on " + was.Host + " now"}
			}
			ok, err := omapChange{
				expect: map[string][]byte{key: old},
				set:    map[string][]byte{key: now, definitionKey + m.UUID: []byte(m.XML)},
			}.apply(io, machinesObject)
			if ok || err != nil {
				return wrap("record", "VM "+m.Name, err)
			}
		}
		return ctx.Err()
	})
}

// readMachine also returns the record's bytes, nil if there is none.
func readMachine(io *rados.IOContext, id string) (m Machine, raw []byte, err error) {
	has, err := io.GetAllOmapValues(machinesObject, "", machineKey+id, 1)
	if err != nil && !is(err, ErrNotFound) {
		return m, nil, wrap("read record of", "VM "+id, err)
	}
	raw = has[machineKey+id]
	if raw == nil {
		return m, nil, nil
	}
	return m, raw, wrap("read record of", "VM "+id, json.Unmarshal(raw, &m))
}

// Machine is the record of one machine, with its definition; [ErrNotFound] if there
// is none.
func (c *Cluster) Machine(ctx context.Context, pool, id string) (Machine, error) {
	var m Machine
	err := c.pool(ctx, pool, func(io *rados.IOContext) (err error) {
		var raw []byte
		if m, raw, err = readMachine(io, id); err != nil {
			return err
		}
		if raw == nil {
			return &Error{Op: "find", Object: "record of VM " + id, Kind: ErrNotFound}
		}
		has, err := io.GetAllOmapValues(machinesObject, "", definitionKey+id, 1)
		m.XML = string(has[definitionKey+id])
		return wrap("read record of", "VM "+id, err)
	})
	return m, err
}

// FindMachine is the record of the machine with a UUID or a name, with its
// definition. A name that several have, on as many hosts, is [ErrInvalid] and says
// which; none is [ErrNotFound].
func (c *Cluster) FindMachine(ctx context.Context, pool, vm string) (Machine, error) {
	if id, err := uuid.Parse(vm); err == nil {
		m, err := c.Machine(ctx, pool, id.String())
		if !errors.Is(err, ErrNotFound) {
			return m, err
		}
	}
	all, err := c.Machines(ctx, pool)
	if err != nil {
		return Machine{}, err
	}
	all = slices.DeleteFunc(all, func(m Machine) bool { return m.Name != vm })
	switch len(all) {
	case 0:
		return Machine{}, &Error{Op: "find", Object: "record of VM " + vm, Kind: ErrNotFound}
	case 1:
		return c.Machine(ctx, pool, all[0].UUID)
	}
	e := &Error{Object: "VM " + vm, Kind: ErrInvalid, Reason: "several have that name; say which by its UUID"}
	for _, m := range all {
		e.Holders = append(e.Holders, m.UUID+" on "+m.Host)
	}
	return Machine{}, e
}

// Machines are the records of a pool's machines, by name.
func (c *Cluster) Machines(ctx context.Context, pool string) ([]Machine, error) {
	all := []Machine{}
	err := c.pool(ctx, pool, func(io *rados.IOContext) error {
		has, err := io.GetAllOmapValues(machinesObject, "", machineKey, 1000)
		if err != nil && !is(err, ErrNotFound) {
			return wrap("list", "machines of pool "+pool, err)
		}
		for key, value := range has {
			var m Machine
			if err := json.Unmarshal(value, &m); err != nil {
				return wrap("read record of", "VM "+strings.TrimPrefix(key, machineKey), err)
			}
			all = append(all, m)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Machine) int {
		return strings.Compare(a.Name+a.UUID, b.Name+b.UUID)
	})
	return all, err
}

// ForgetMachine removes a machine's record; none is fine.
func (c *Cluster) ForgetMachine(ctx context.Context, pool, id string) error {
	return c.pool(ctx, pool, func(io *rados.IOContext) error {
		err := io.RmOmapKeys(machinesObject, []string{machineKey + id, definitionKey + id})
		return wrap("forget", "VM "+id, ignore(err, ErrNotFound))
	})
}
