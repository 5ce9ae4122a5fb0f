// How a lab goes: which processes on this machine are its own, and how they and
// its files are removed, whatever state they are in.

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// hostMark is the file in a host's own /run that says whose host it is.
const hostMark = "/run/vmdisk-lab"

// clear kills the lab's processes and removes its files, except the directory
// itself and the lock.
func (l *Lab) clear(ctx context.Context) error {
	if err := l.reap(ctx); err != nil {
		return err
	}
	var names []string
	for _, h := range l.Hosts {
		names = append(names, h.Name)
	}
	for _, name := range append(names, owned...) {
		if err := os.RemoveAll(filepath.Join(l.Dir, name)); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}

// remove clears the lab and then removes the lock, and the directory if the
// lab made it and it is empty.
func (l *Lab) remove(ctx context.Context) error {
	if err := l.clear(ctx); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(l.Dir, lockName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lab: %w", err)
	}
	if !l.state.Made {
		return nil
	}
	err := os.Remove(l.Dir)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrNotExist) {
		return nil // someone keeps files of their own there
	}
	return err
}

// reap kills every process of the lab and waits until none is left. With the
// last process of a host its namespaces and mounts go. A daemon may start
// another while it is looked for, so it looks again until there is none.
func (l *Lab) reap(ctx context.Context) error {
	err := until(ctx, func() error {
		left, err := l.members()
		if err != nil {
			return final(err)
		}
		var names []string
		for _, p := range left {
			names = append(names, strconv.Itoa(p.PID))
			if err := p.signal(syscall.SIGKILL); err != nil {
				return final(err)
			}
		}
		if len(names) > 0 {
			return fmt.Errorf("still alive: pid %s", strings.Join(names, ", "))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("lab: removing processes: %w", err)
	}
	return nil
}

// members returns the living processes of the lab: those it recorded, those
// that carry its mark, and those that are on one of its hosts, as QEMU is.
// Processes of this boot only: recorded pids of another are no one's.
func (l *Lab) members() ([]process, error) {
	recorded := map[process]bool{}
	if l.state.Boot == bootID() {
		for _, p := range l.state.processes() {
			recorded[p] = true
		}
	}
	var members []process
	err := eachProcess(func(pid int) {
		p, err := identify(pid)
		if err != nil || pid == os.Getpid() || p.condition() == Dead {
			return
		}
		if recorded[p] || l.marked(pid) || l.hostOf(pid) != "" {
			members = append(members, p)
		}
	})
	return members, err
}

// eachProcess calls f with every pid of the machine.
func eachProcess(f func(pid int)) error {
	proc, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			f(pid)
		}
	}
	return nil
}

// marked says whether a process carries the lab's mark in its environment.
func (l *Lab) marked(pid int) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	want := []byte(mark + "=" + l.markValue())
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(v, want) {
			return true
		}
	}
	return false
}

// hostOf returns the name of the lab's host that a process is on, or "". It
// reads the host's mark through the root of the process, so it needs no record
// of namespaces, whose numbers the kernel uses again.
func (l *Lab) hostOf(pid int) string {
	proc := fmt.Sprintf("/proc/%d", pid)
	theirs, err := os.Readlink(proc + "/ns/mnt")
	if err != nil {
		return ""
	}
	if ours, err := os.Readlink("/proc/self/ns/mnt"); err != nil || ours == theirs {
		return ""
	}
	b, err := os.ReadFile(proc + "/root" + hostMark)
	if err != nil {
		return ""
	}
	id, name, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if id != l.FSID {
		return ""
	}
	return name
}
