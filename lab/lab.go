// The lab as a whole: how it comes up, how it is found again, how it goes.

// Package lab makes a throw-away but real stack on one Linux machine: a Ceph
// cluster, libvirt hosts that can migrate machines to each other, and a bootable
// guest whose console tells the truth about its disks. Tests, the demo
// and a laptop use it; nothing in it is simulated.
//
// A lab lives in one directory. [Up] makes it or finds it healthy, [Open] finds
// it from another process, [Down] removes it with everything that it started:
// processes, mounts, namespaces and files. It needs root, about 3 GiB of memory
// with two small guests, and the Debian packages that Up names when they are
// missing.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Store is what a cluster's OSDs keep their data in.
type Store string

const (
	// BlueStore keeps data in a sparse file: it survives kill -9 of the OSD.
	BlueStore Store = "bluestore"
	// MemStore keeps data in the OSD's memory: it starts sooner and forgets all
	// when the OSD stops.
	MemStore Store = "memstore"
)

var (
	// ErrNoLab is returned when the directory holds no lab, or one that is not
	// up: never finished, taken down, or from before a reboot.
	ErrNoLab = errors.New("no lab is up there")
	// ErrNotLab is returned instead of touching a directory with foreign files.
	ErrNotLab = errors.New("the directory is not a lab's")
)

const (
	upDeadline   = 5 * time.Minute
	downDeadline = time.Minute
)

// Options say what lab to make. The zero value, but for Dir, is a good lab.
type Options struct {
	// Dir is the lab's directory. It must be missing, empty, or a lab's, and its
	// path short: sockets in it have long names and at most 107 bytes.
	Dir string
	// OSDs is how many OSDs the cluster has: 0 means 1, and 8 is the most.
	OSDs int
	// Hosts is how many libvirt hosts there are: 0 means 2, and 8 is the most.
	Hosts int
	// Store is what they keep their data in: "" means BlueStore.
	Store Store
	// Bare leaves out what vmdisk cluster init makes: the pools, the users but
	// client.admin, and most of ceph.conf's [client].
	Bare bool
	// Hurried has the monitor agree at once to what by default it gathers for up to
	// a second, snapshots among it: for tests, not for measuring.
	Hurried bool
	// Cache is where downloads and the built guest are kept for the next lab:
	// "" means /var/cache/vmdisk-lab. It outlives the lab.
	Cache string
	// Report, if set, is told what is being done, one line a step. It may be
	// called from several goroutines, but never from two at once.
	Report func(format string, args ...any)
}

// Lab is a lab that is up. It holds no connection and nothing to close: any
// number of processes may have the same lab open. Its methods may be called
// from several goroutines.
type Lab struct {
	// Dir is the lab's directory, absolute and without symbolic links.
	Dir string
	// FSID is the cluster's identity.
	FSID string
	// Conf is the path of ceph.conf. Each host sees a copy of its own at this
	// path, Host.Conf.
	Conf string
	// Guest is the path of the bootable raw disk image. Treat it as read-only:
	// boot a copy or a clone.
	Guest string
	// Hosts are compute1, compute2 and so on: at least one.
	Hosts []*Host

	state  *state
	cache  string
	report func(format string, args ...any)
}

// Up returns the lab in o.Dir, making it if there is none. A healthy lab is
// returned as it is, within a second; a half or dead one (some part was killed,
// Up itself was, or the machine was restarted) is cleared first. Making one
// takes 10 s to a minute and blocks that long; a lab that Up made has passed a
// self-test. Two Ups on one directory wait for each other.
//
// When Up fails or ctx ends, what it made is removed again. Errors name the
// missing program and its Debian package, and end with the tail of the log of
// the daemon that failed.
func Up(ctx context.Context, o Options) (*Lab, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := preflight(); err != nil {
		return nil, err
	}
	lock, made, err := lockDir(ctx, o.Dir, o.Report)
	if err != nil {
		return nil, err
	}
	defer lock.release()
	l, left, err := healthy(ctx, o)
	if l != nil || err != nil {
		return l, err
	}
	made = made || left
	ctx, cancel := context.WithTimeout(ctx, upDeadline)
	defer cancel()
	return build(ctx, o, made)
}

// healthy returns the lab that is up in o.Dir. If there is none it clears what
// is left there, and says whether that lab had made the directory.
func healthy(ctx context.Context, o Options) (l *Lab, made bool, err error) {
	s, err := loadState(o.Dir)
	if err != nil || s == nil {
		return nil, false, err
	}
	l = newLab(s, o.Report)
	sick := l.sick(ctx)
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	if sick != nil {
		o.Report("clearing the lab that was here: %v", sick)
		return nil, s.Made, l.clear(ctx)
	}
	if err := s.fits(o); err != nil {
		return nil, false, err
	}
	return l, false, nil
}

// build makes a lab in an empty, locked directory.
func build(ctx context.Context, o Options, made bool) (l *Lab, err error) {
	began := time.Now()
	if err := roomIn(o.Dir); err != nil {
		return nil, err
	}
	s, err := newState(o, made)
	if err != nil {
		return nil, err
	}
	l = newLab(s, o.Report)
	defer func() {
		if err == nil {
			return
		}
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downDeadline)
		defer cancel()
		l.report("clearing what was made")
		err = errors.Join(err, l.remove(cctx))
		l = nil
	}()
	if err := s.save(); err != nil {
		return l, err
	}
	guard, err := reservePorts(s)
	if err != nil {
		return l, err
	}
	defer guard.Close()
	if err := l.writeCephConf(); err != nil {
		return l, err
	}
	if err := l.writeCertificates(); err != nil {
		return l, err
	}
	if err := l.assemble(ctx, guard); err != nil {
		return l, err
	}
	s.Phase = phaseUp
	if err := s.save(); err != nil {
		return l, err
	}
	l.report("lab is up in %s: %.1f s", l.Dir, time.Since(began).Seconds())
	return l, nil
}

// assemble starts the parts, those that do not need each other side by side.
func (l *Lab) assemble(ctx context.Context, guard *os.File) error {
	forGuest := []func(context.Context) error{l.makeGuest}
	for _, h := range l.Hosts {
		forGuest = append(forGuest, func(ctx context.Context) error { return h.up(ctx, guard) })
		guard = nil // one keeps it
	}
	return parallel(ctx,
		func(ctx context.Context) error {
			if err := l.cephUp(ctx); err != nil {
				return fmt.Errorf("ceph: %w", err)
			}
			if l.state.Bare {
				return nil // there is no pool to write to
			}
			return l.testCeph(ctx)
		},
		func(ctx context.Context) error {
			if err := parallel(ctx, forGuest...); err != nil {
				return err
			}
			return l.testGuest(ctx)
		})
}

// Open returns the lab that is up in dir without looking at its parts: see
// [Lab.Status]. It does not block. The error is ErrNoLab if none is.
func Open(dir string) (*Lab, error) {
	dir, err := realDir(dir)
	if err != nil {
		return nil, err
	}
	s, err := loadState(dir)
	if err != nil {
		return nil, err
	}
	if s == nil || s.Phase != phaseUp || s.Boot != bootID() {
		return nil, fmt.Errorf("lab: %s: %w", dir, ErrNoLab)
	}
	return newLab(s, silent), nil
}

// Down removes the lab in dir, healthy or dead: its processes (killed, not
// asked), with them its namespaces and mounts, and its files. The directory
// goes too if the lab made it and nothing foreign is in it. It blocks until all
// is gone, usually less than a second, and before that until an Up of another
// process is over. The error is ErrNotLab, and nothing is touched, if
// dir is not a lab's; ErrNoLab if it is missing or empty.
func Down(ctx context.Context, dir string) error {
	dir, err := realDir(dir)
	if err != nil {
		return err
	}
	s, err := loadState(dir)
	if err != nil {
		return err
	}
	if s == nil {
		return errors.Join(fmt.Errorf("lab: %s: %w", dir, ErrNoLab), sweep(dir))
	}
	lock, err := waitLock(ctx, filepath.Join(dir, lockName))
	if err != nil {
		return fmt.Errorf("lab: %s: another process works on it: %w", dir, err)
	}
	defer lock.release()
	if s, err = loadState(dir); err != nil {
		return err
	}
	if s == nil { // another Down was here
		return errors.Join(fmt.Errorf("lab: %s: %w", dir, ErrNoLab), os.Remove(lock.path))
	}
	return newLab(s, silent).remove(ctx)
}

// Down removes the lab: see the function [Down].
func (l *Lab) Down(ctx context.Context) error { return Down(ctx, l.Dir) }

// Env returns what a shell or a child process needs to use the lab, as
// "NAME=value": CEPH_CONF, LIBVIRT_DEFAULT_URI (the first host), VMDISK_HOST1,
// VMDISK_HOST2 and so on (libvirt URIs), VMDISK_GUEST (path of a bootable raw
// image) and VMDISK_VIRT_TYPE.
func (l *Lab) Env() []string {
	env := []string{
		"CEPH_CONF=" + l.Conf,
		"LIBVIRT_DEFAULT_URI=" + l.Hosts[0].URI,
		"VMDISK_GUEST=" + l.Guest,
		"VMDISK_VIRT_TYPE=qemu",
	}
	for i, h := range l.Hosts {
		env = append(env, fmt.Sprintf("VMDISK_HOST%d=%s", i+1, h.URI))
	}
	return env
}

// Keyring returns the path of a user's keyring: "admin", "glance", "cinder" or
// "cinder-backup". ceph.conf points every client there, so it is seldom needed.
func (l *Lab) Keyring(user string) string {
	return filepath.Join(l.Dir, "ceph", "ceph.client."+user+".keyring")
}

func newLab(s *state, report func(string, ...any)) *Lab {
	l := &Lab{
		Dir:    s.Dir,
		FSID:   s.FSID,
		Conf:   filepath.Join(s.Dir, "ceph", "ceph.conf"),
		Guest:  filepath.Join(s.Dir, "guest.raw"),
		state:  s,
		cache:  s.Cache,
		report: report,
	}
	for i := range s.Hosts {
		l.Hosts = append(l.Hosts, newHost(l, i))
	}
	return l
}
