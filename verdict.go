// The verdict on a machine: what it comes to, in a sentence, and what to type.

package vmdisk

import (
	"fmt"
	"strings"
)

// judge looks for what is wrong, the worst first.
func (w *why) judge() {
	for _, cause := range []func() (verdict, next string){
		w.gone, w.twice, w.left, w.interrupted, w.fencedQEMU, w.deafHost, w.elsewhere,
		w.underWay, w.staleLock, w.stranger, w.helpless, w.fine,
	} {
		if w.Verdict, w.Next = cause(); w.Verdict != "" {
			return
		}
	}
}

// running are the hosts that run it.
func (w *why) running() (names []string) {
	for _, h := range w.Hosts {
		if h.Running {
			names = append(names, h.Host)
		}
	}
	return names
}

// here is what this host says.
func (w *why) here() WhyHost { return w.Hosts[0] }

// users are those of all disks that yes says yes to.
func (w *why) users(yes func(WhyUser) bool) (all []string) {
	for _, d := range w.Disks {
		for _, u := range d.Users {
			if yes(u) {
				all = append(all, u.Addr)
			}
		}
	}
	return all
}

func (w *why) gone() (string, string) {
	for _, d := range w.Disks {
		if d.Error != "" {
			return d.Pool + "/" + d.Image + " " + d.Error, ""
		}
	}
	return "", ""
}

func (w *why) twice() (string, string) {
	if len(w.running()) > 1 && !w.here().condition.Moving && !w.here().condition.IOError {
		return "it runs twice, on " + strings.Join(w.running(), " and ") + "; it belongs to " + w.Record.Host,
			"vmdisk repair " + w.VM
	}
	if w.here().Running && w.Record != nil && w.Record.Host == w.host {
		known := w.users(func(u WhyUser) bool { return u.Watches && u.Known })
		others := w.users(func(u WhyUser) bool { return u.Watches && !u.Known })
		if len(known) > 0 && len(others) > 0 {
			return fmt.Sprintf("it runs on %s, and %s, which is not here, has its disk open too", w.host, others[0]),
				"on the host that this is:  vmdisk repair " + w.VM
		}
	}
	return "", ""
}

func (w *why) left() (string, string) {
	if w.Record == nil || w.Record.LeftBehind(w.host) == nil {
		return "", ""
	}
	if w.Record.Host == w.host {
		return "an evacuation from here was given up: its clients are fenced", "vmdisk repair " + w.VM
	}
	return "it was taken from here to " + w.Record.Host + "; what is left of it here is fenced", "vmdisk repair " + w.VM
}

func (w *why) interrupted() (string, string) {
	for _, o := range w.Operations {
		switch o.State {
		case Interrupted:
			if o.Kind == "fill" {
				return "the filling of its disk was interrupted", "vmdisk fill " + w.VM
			}
			return "a " + o.Kind + " was interrupted", "vmdisk repair " + w.VM
		case Silent:
			return "a " + o.Kind + " is under way whose process does not answer, for less than 30 s", "vmdisk repair " + w.VM
		}
	}
	return "", ""
}

func (w *why) fencedQEMU() (string, string) {
	if w.here().condition.IOError && w.Record != nil && w.Record.Host == w.host {
		for _, addr := range w.Record.Clients {
			if isFenced(w.fences, addr) {
				return "its QEMU here is fenced and writes nothing any more",
					"vmdisk stop --force " + w.VM + " && vmdisk start " + w.VM
			}
		}
		return "a disk failed it, and it waits; when Ceph is well again:", "virsh resume " + w.VM
	}
	return "", ""
}

func (w *why) deafHost() (string, string) {
	if len(w.Hosts) < 2 || w.Hosts[1].Error == "" {
		return "", ""
	}
	if w.here().Running {
		return "it runs here and belongs to " + w.Record.Host + ", which does not answer", "vmdisk repair " + w.VM
	}
	return "it belongs to " + w.Record.Host + ", which does not answer", "if that is dead:  vmdisk evacuate " + w.VM + " --from " + w.Record.Host
}

func (w *why) elsewhere() (string, string) {
	if len(w.Hosts) < 2 {
		return "", ""
	}
	other := w.Hosts[1]
	switch {
	case w.here().Running:
		return "it runs here, and its record says " + other.Host, "vmdisk repair " + w.VM
	case other.Running:
		return "it is " + other.State + " on " + other.Host, ""
	case other.Defined:
		return "it is " + other.State + " on " + other.Host, "there:  vmdisk start " + w.VM
	case w.here().Defined:
		return "it is defined here, and its record says " + other.Host, "vmdisk repair " + w.VM
	}
	return "it is nowhere: neither here nor on " + other.Host + ", to which it belongs", ""
}

func (w *why) underWay() (string, string) {
	for _, o := range w.Operations {
		return fmt.Sprintf("a %s is under way, by pid %d on %s", o.Kind, o.Holder.PID, o.Holder.Host), ""
	}
	return "", ""
}

func (w *why) staleLock() (string, string) {
	if len(w.running()) > 0 || !w.here().Defined {
		return "", ""
	}
	if len(w.users(func(u WhyUser) bool { return u.Locks && (!u.Watches || u.Fenced || u.Known) })) > 0 {
		if next, ok := w.caps(); !ok {
			return "a dead client has its lock, and a guest could not take it: it would find its disk read-only", next
		}
		return "a dead client has its lock; a start fences it first", "vmdisk start " + w.VM
	}
	return "", ""
}

func (w *why) stranger() (string, string) {
	if len(w.running()) > 0 {
		return "", ""
	}
	if by := w.users(func(u WhyUser) bool { return u.Watches && !u.Known }); len(by) > 0 {
		return "it is off, and " + by[0] + " has its disk open", "who is that?  ceph tell 'mon.*' sessions | grep " + by[0]
	}
	if by := w.users(func(u WhyUser) bool { return u.Watches }); len(by) > 0 && w.here().Defined {
		return "its QEMU is gone and its watch not yet; a start does not wait for that", "vmdisk start " + w.VM
	}
	return "", ""
}

// caps is what to type for a user who may not fence.
func (w *why) caps() (next string, ok bool) {
	if w.Checks[0].OK {
		return "", true
	}
	return "ceph auth caps client." + w.cluster.User() + " mon 'profile rbd' osd …", false
}

func (w *why) helpless() (string, string) {
	if next, ok := w.caps(); !ok {
		return w.Checks[0].Detail, next
	}
	return "", ""
}

func (w *why) fine() (string, string) {
	switch {
	case w.here().Running:
		return "it runs on " + w.here().Host + ", and nobody else has its disks", ""
	case w.here().Defined:
		return "it is off, and nobody has its disks", "vmdisk start " + w.VM
	}
	return "nobody has its disks, and no host is known to define it", ""
}
