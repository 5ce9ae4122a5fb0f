// What a guest says: its serial console, as virtlogd writes it to a file on the
// host where the guest runs.

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Console reads the console of a machine whose serial port has
// <log file='/var/log/libvirt/qemu/NAME-console.log' append='on'/>. Only whole
// lines are seen. It holds nothing open; use it from one goroutine.
type Console struct {
	// Path is the log, as seen from outside the host.
	Path string

	offset int
}

// Console returns the console of the machine of that name on a host, read from
// its beginning. A machine that migrates goes on in the other host's log.
func (l *Lab) Console(host *Host, vm string) *Console {
	return &Console{Path: filepath.Join(host.Dir, "log/libvirt/qemu", vm+"-console.log")}
}

// All returns everything that the guest has said, or "" if nothing yet.
func (c *Console) All() (string, error) {
	b, err := os.ReadFile(c.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("lab: console: %w", err)
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	return strings.ReplaceAll(string(b), "\r", ""), nil
}

// Skip makes the next Wait look only at what is said from now on.
func (c *Console) Skip() error {
	all, err := c.All()
	c.offset = len(all)
	return err
}

// Wait waits until the guest says something that matches, after what the last
// Wait or Skip found, and returns the match and its groups. The error, when ctx
// ends first, has the end of the console in it.
func (c *Console) Wait(ctx context.Context, want *regexp.Regexp) ([]string, error) {
	for {
		all, err := c.All()
		if err != nil {
			return nil, err
		}
		rest := all[min(c.offset, len(all)):]
		if m := want.FindStringSubmatchIndex(rest); m != nil {
			c.offset = len(all) - len(rest) + m[1]
			return submatches(rest, m), nil
		}
		if err := pause(ctx); err != nil {
			return nil, fmt.Errorf("lab: the guest did not say %q: %w\n  %s ends:%s", want, err, c.Path, lastLines(all))
		}
	}
}

func submatches(s string, index []int) []string {
	groups := make([]string, len(index)/2)
	for i := range groups {
		if from := index[2*i]; from >= 0 {
			groups[i] = s[from:index[2*i+1]]
		}
	}
	return groups
}

// Acked returns the highest number whose write to a disk, such as "vda", the
// guest saw acknowledged, or 0.
func (c *Console) Acked(disk string) (uint64, error) {
	all, err := c.All()
	return highest(all, "ack "+disk+" "), err
}

// Failed returns the highest number whose write to a disk failed, or 0.
func (c *Console) Failed(disk string) (uint64, error) {
	all, err := c.All()
	return highest(all, "fail "+disk+" "), err
}

// WaitAcked waits until the guest has seen a number above n acknowledged on a
// disk, and returns the highest such number. A guest that has crashed by then is not
// waited for: [ErrCrashed].
func (c *Console) WaitAcked(ctx context.Context, disk string, n uint64) (uint64, error) {
	for {
		acked, err := c.Acked(disk)
		if err != nil || acked > n {
			return acked, err
		}
		all, _ := c.All()
		err = crashed(all)
		if err == nil {
			err = pause(ctx)
		}
		if err != nil {
			return acked, fmt.Errorf("lab: no block after %d acknowledged on %s: %w\n  %s ends:%s",
				n, disk, err, c.Path, lastLines(all))
		}
	}
}

// ErrCrashed is a guest whose kernel says that it has crashed: it writes no more.
var ErrCrashed = errors.New("the guest's kernel has crashed")

var crash = regexp.MustCompile(`(?m)^.*(kernel BUG at|BUG: (unable|kernel|Bad)|Oops|Kernel panic|general protection fault|list_(add|del) corruption).*$`)

// crashed returns what a kernel says when it crashes, or nil.
func crashed(text string) error {
	if line := crash.FindString(text); line != "" {
		return fmt.Errorf("%w: %s", ErrCrashed, strings.TrimSpace(line))
	}
	return nil
}

// highest returns the highest number on the lines that begin with prefix.
func highest(text, prefix string) (top uint64) {
	for line := range strings.Lines(text) {
		if number, ok := strings.CutPrefix(line, prefix); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64); err == nil {
				top = max(top, n)
			}
		}
	}
	return top
}
