// Which process works on the cluster, and the proof that it no longer lives.

package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Process is a client of the cluster: a vmdisk, or whatever embeds it.
type Process struct {
	Client uint64 `json:"client"`  // its global id: client.4123
	Addr   string `json:"address"` // IP:PORT/NONCE, the form that `ceph osd blocklist` takes
	// Also are the addresses of its other connections, which are fenced with it.
	Also []string `json:"also,omitempty"`
	Host string   `json:"host"`
	PID  int      `json:"pid"`
	// What makes a PID mean one process for all time: the boot of the machine, the
	// PID namespace, and when the process started, in ticks after the boot.
	Boot      string `json:"boot"`
	Namespace string `json:"namespace"`
	Ticks     uint64 `json:"ticks"`
}

// IsSelf says whether it is this process, with whichever connection.
func (p Process) IsSelf() bool {
	boot, namespace := surroundings()
	ticks, err := startOf(os.Getpid())
	return err == nil && p.PID == os.Getpid() && p.Ticks == ticks && p.Boot == boot && p.Namespace == namespace
}

func (p Process) String() string {
	return fmt.Sprintf("pid %d on %s (client.%d, %s)", p.PID, p.Host, p.Client, p.Addr)
}

// self describes this process as the cluster sees it.
func (c *Cluster) self() (Process, error) {
	p := Process{Client: c.conn.GetInstanceID(), PID: os.Getpid()}
	var err error
	c.workMu.Lock()
	p.Also = c.also
	c.workMu.Unlock()
	if p.Addr, err = c.conn.GetAddrs(); err != nil {
		return p, wrap("read address of", "this client", err)
	}
	if p.Host, err = os.Hostname(); err != nil {
		return p, wrap("read name of", "this host", err)
	}
	p.Boot, p.Namespace = surroundings()
	p.Ticks, err = startOf(p.PID)
	return p, wrap("read start of", "this process", err)
}

// Accompany makes another connection of this process go with this one: whoever takes
// the work of this process over fences both.
func (c *Cluster) Accompany(other *Cluster) error {
	addr, err := other.conn.GetAddrs()
	if err != nil {
		return wrap("read address of", "client."+other.user, err)
	}
	c.workMu.Lock()
	defer c.workMu.Unlock()
	c.also = append(slices.Clip(c.also), addr)
	return nil
}

// surroundings are the machine's boot and the PID namespace, "" where they cannot
// be read.
func surroundings() (boot, namespace string) {
	if text, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		boot = strings.TrimSpace(string(text))
	}
	namespace, _ = os.Readlink("/proc/self/ns/pid")
	return boot, namespace
}

// startOf is when a process started; one that has ended and waits for its parent to
// notice is [fs.ErrNotExist]. It has not ended before its last thread has, which may be
// in the middle of a call when the first is a zombie already. Source: proc(5), fields 3,
// 20 and 22 of stat; the second, the name, may contain anything.
func startOf(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const threads, start = 20 - 3, 22 - 3 // counted from the third
	if len(fields) <= start {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	if fields[0] == "Z" && slices.Contains([]string{"0", "1"}, fields[threads]) || fields[0] == "X" { // none while it is reaped
		return 0, fs.ErrNotExist
	}
	return strconv.ParseUint(fields[start], 10, 64)
}

// Dead is true if the process is proven dead: it was one of this machine and is
// not there any more. False proves nothing.
func (p Process) Dead() bool {
	boot, namespace := surroundings()
	if p.Boot == "" || p.Boot != boot || p.Namespace == "" || p.Namespace != namespace {
		return false
	}
	ticks, err := startOf(p.PID)
	return errors.Is(err, fs.ErrNotExist) || err == nil && ticks != p.Ticks
}
