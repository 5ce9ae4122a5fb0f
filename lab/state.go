// What a lab remembers on disk: one JSON file, replaced whole, and the lock that
// keeps two processes from changing one lab at once.

package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	stateName = "lab.json"
	lockName  = "lab.lock"

	phaseStarting = "starting"
	phaseUp       = "up"
)

// owned are the entries of a lab's directory, besides those of its hosts. Nothing
// else in it is removed.
var owned = []string{"ceph", "guest.raw", "pki", stateName + ".new", stateName}

// state is what a lab's parts are, and whose processes they are.
type state struct {
	Dir   string `json:"dir"`
	FSID  string `json:"fsid"`
	Phase string `json:"phase"`
	// Boot is the machine's boot id: pids of another boot mean nothing.
	Boot string `json:"boot"`
	// Made says that the lab made its directory, and so removes it.
	Made     bool      `json:"made"`
	OSDs     int       `json:"osds"`
	Hosts    int       `json:"hosts"`
	Store    Store     `json:"store"`
	Bare     bool      `json:"bare,omitempty"`
	Hurried  bool      `json:"hurried,omitempty"`
	Cache    string    `json:"cache"`
	Created  time.Time `json:"created"`
	BasePort int       `json:"base_port"`
	// Processes are the daemons, by the name of their part.
	Processes map[string]process `json:"processes"`

	mu sync.Mutex
}

func newState(o Options, made bool) (*state, error) {
	s := &state{
		Dir: o.Dir, FSID: newUUID(), Phase: phaseStarting, Boot: bootID(), Made: made,
		OSDs: o.OSDs, Hosts: o.Hosts, Store: o.Store, Bare: o.Bare, Hurried: o.Hurried, Cache: o.Cache, Created: time.Now().UTC().Truncate(time.Second),
		Processes: map[string]process{},
	}
	if s.Boot == "" {
		return nil, errors.New("lab: /proc is not mounted")
	}
	return s, nil
}

// loadState returns the state kept in dir, or nil if dir is no lab's yet. A
// directory with other things in it, and no state, is ErrNotLab.
func loadState(dir string) (*state, error) {
	b, err := os.ReadFile(filepath.Join(dir, stateName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuseForeign(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	s := &state{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("lab: %s: %w: %w", filepath.Join(dir, stateName), ErrNotLab, err)
	}
	if s.FSID == "" || s.Dir != dir {
		return nil, fmt.Errorf("lab: %s: %w: its %s is of %q", dir, ErrNotLab, stateName, s.Dir)
	}
	s.Hosts = cmp.Or(s.Hosts, defaultHosts) // it was made before there was a choice
	if s.Processes == nil {
		s.Processes = map[string]process{}
	}
	return s, nil
}

// refuseForeign returns ErrNotLab if dir has entries in it.
func refuseForeign(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lab: %w", err)
	}
	for _, e := range entries {
		// Both are all that a killed Up may leave before it has a state.
		if e.Name() != lockName && e.Name() != stateName+".new" {
			return fmt.Errorf("lab: %s: %w: it holds %q and no %s", dir, ErrNotLab, e.Name(), stateName)
		}
	}
	return nil
}

// save replaces the state file, whole or not at all.
func (s *state) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	path := filepath.Join(s.Dir, stateName)
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// record remembers the process of a part.
func (s *state) record(part string, p process) error {
	s.mu.Lock()
	s.Processes[part] = p
	s.mu.Unlock()
	return s.save()
}

// process returns the process last recorded for a part.
func (s *state) process(part string) process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Processes[part]
}

// processes returns a copy of what is recorded.
func (s *state) processes() map[string]process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.Processes)
}

// refresh reads again which process each part is: another process that has the
// lab open may have restarted one.
func (s *state) refresh() error {
	now, err := loadState(s.Dir)
	if err != nil {
		return err
	}
	if now == nil || now.FSID != s.FSID {
		return fmt.Errorf("lab: %s: %w: it was taken down", s.Dir, ErrNoLab)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Processes = now.Processes
	return nil
}

// fits refuses to pass off a lab as one that it is not.
func (s *state) fits(o Options) error {
	if s.OSDs != o.OSDs || s.Store != o.Store {
		return fmt.Errorf("lab: %s is up with %d OSDs on %s, not %d on %s: take it down first",
			s.Dir, s.OSDs, s.Store, o.OSDs, o.Store)
	}
	if s.Hosts != o.Hosts {
		return fmt.Errorf("lab: %s is up with %d hosts, not %d: take it down first", s.Dir, s.Hosts, o.Hosts)
	}
	if o.Bare && !s.Bare {
		return fmt.Errorf("lab: %s is up and not bare: take it down first", s.Dir)
	}
	return nil
}

// dirLock is the lock of a lab's directory. The kernel lets go of it when its
// holder dies.
type dirLock struct {
	path string
	file *os.File
}

// lockDir locks dir, which it makes if it is missing, and says whether it did.
// It waits for another holder until ctx ends.
func lockDir(ctx context.Context, dir string, report func(string, ...any)) (*dirLock, bool, error) {
	made := false
	path := filepath.Join(dir, lockName)
	waiting := false
	for {
		if s, err := loadState(dir); s == nil && err != nil {
			return nil, false, err
		}
		switch err := os.Mkdir(dir, 0o755); {
		case err == nil:
			made = true
		case errors.Is(err, fs.ErrNotExist):
			if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
				return nil, false, fmt.Errorf("lab: %w", err)
			}
			continue
		case !errors.Is(err, fs.ErrExist):
			return nil, false, fmt.Errorf("lab: %w", err)
		}
		l, err := tryLock(path)
		if l != nil {
			return l, made, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, false, fmt.Errorf("lab: %w", err)
		}
		if !waiting {
			report("waiting for another process that works on %s", dir)
			waiting = true
		}
		if err := pause(ctx); err != nil {
			return nil, false, err
		}
	}
}

// tryLock returns nil without an error when another holds the lock, or removed
// the file while it was being locked.
func tryLock(path string) (*dirLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, err
	}
	mine, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Stat(path); err == nil && os.SameFile(mine, there) {
			return &dirLock{path: path, file: f}, nil
		}
	}
	f.Close()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nil, nil
}

// waitLock locks a file whose directory stays, waiting until ctx ends.
func waitLock(ctx context.Context, path string) (*dirLock, error) {
	for {
		l, err := tryLock(path)
		if l != nil || err != nil {
			return l, err
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// sweep removes what an Up leaves that is killed before it has a state. Another
// that is at that point right now holds the lock.
func sweep(dir string) error {
	path := filepath.Join(dir, lockName)
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	l, err := tryLock(path)
	if l == nil {
		return err
	}
	defer l.release()
	for _, f := range []string{filepath.Join(dir, stateName+".new"), path} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (l *dirLock) release() { l.file.Close() }

// bootID returns what tells this boot of the machine from all others.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
