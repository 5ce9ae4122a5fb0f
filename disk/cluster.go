// The connection to Ceph: how it is configured, opened, and what it answers
// about itself.

package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// DefaultConf is the ceph.conf that librados and QEMU read when nobody names
// another one.
const DefaultConf = "/etc/ceph/ceph.conf"

// How long a control connection waits when [Config.Timeout] is 0. Ceph's own
// defaults are 300 s to connect and no limit for operations. The OSD's is above
// the time in which a cluster notices a dead OSD (heartbeat grace and interval,
// 26 s), so that a single failed OSD is survived and not reported.
const (
	mountTimeout = 10 * time.Second
	monTimeout   = 15 * time.Second
	osdTimeout   = 60 * time.Second
)

// workers is how many calls into librbd run at once in a bulk operation; each
// blocks one OS thread. More than this measured no faster on one connection.
const workers = 16

// Config says how to reach Ceph. The zero value is what `rbd` would use, as
// client.cinder.
type Config struct {
	// Conf is the path of ceph.conf; "" is /etc/ceph/ceph.conf.
	Conf string
	// User is the cephx user without "client."; "" is "cinder".
	User string
	// Keyring is the file with the user's key; "" is what ceph.conf says.
	Keyring string
	// Timeout is how long one operation may wait for a monitor or an OSD before
	// it fails with [ErrTimeout]; 0 is 10 s to connect, 15 s for monitors and
	// 60 s for OSDs. Whether an operation that timed out took place is unknown.
	Timeout time.Duration
}

// A Cluster is one connection to Ceph, for use by any number of goroutines.
// Whoever opened it closes it.
type Cluster struct {
	conn *rados.Conn
	conf string // absolute path
	user string
	fsid string
	wait time.Duration // for what librados has no time-out of its own

	presence presence

	workMu sync.Mutex
	work   map[string]func(by Process) // what this process works on, by ID, and how it is stopped
	also   []string                    // see Accompany
	calls  int                         // that were left to themselves
	closed bool
}

// Open connects to Ceph. It blocks until the cluster answers, at most as long
// as [Config.Timeout] says, or until ctx ends. CEPH_ARGS is honoured.
//
// A missing or malformed ceph.conf, and a keyring that is missing, unreadable or
// without the user, is [ErrInvalid]; a key that the cluster refuses is
// [ErrPermission]; a cluster that does not answer is [ErrTimeout].
//
// Similar to: any ceph command's start.
func Open(ctx context.Context, cfg Config) (*Cluster, error) {
	c, err := configure(cfg)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- c.conn.Connect() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		// The call cannot be interrupted. The handle is left to it and freed
		// when it returns.
		go func() {
			if <-done == nil {
				c.conn.Shutdown()
			}
		}()
		return nil, wrap("connect to", "Ceph", ctx.Err())
	}
	if err != nil {
		return nil, c.explainConnect(err)
	}
	if c.fsid, err = c.conn.GetFSID(); err != nil {
		c.Close()
		return nil, wrap("read fsid of", "Ceph", err)
	}
	return c, nil
}

// configure makes a connection that is set up and not yet connected.
func configure(cfg Config) (*Cluster, error) {
	if cfg.User == "" {
		cfg.User = "cinder"
	}
	if cfg.Conf == "" {
		cfg.Conf = DefaultConf
	}
	path, err := filepath.Abs(cfg.Conf)
	if err != nil {
		return nil, invalid(cfg.Conf, "%v", err)
	}
	if err := readable(path); err != nil {
		return nil, invalid("ceph.conf "+path, "%v", err)
	}
	conn, err := rados.NewConnWithUser(cfg.User)
	if err != nil {
		return nil, wrap("prepare connection as", "client."+cfg.User, err)
	}
	if err := conn.ReadConfigFile(path); err != nil {
		return nil, invalid("ceph.conf "+path, "is malformed: %v", err)
	}
	if err := conn.ParseDefaultConfigEnv(); err != nil {
		return nil, invalid("CEPH_ARGS", "%v", err)
	}
	for option, value := range options(cfg) {
		if err := conn.SetConfigOption(option, value); err != nil {
			return nil, wrap("set option "+option+" for", "Ceph", err)
		}
	}
	c := &Cluster{conn: conn, conf: path, user: cfg.User, wait: monTimeout}
	if cfg.Timeout > 0 {
		c.wait = cfg.Timeout
	}
	if hosts, _ := conn.GetConfigOption("mon_host"); hosts == "" {
		return nil, invalid("ceph.conf "+path, "names no monitor (mon host)")
	}
	return c, c.checkKeyring()
}

// options are set on vmdisk's own connection only, never in the guest's
// ceph.conf, where a time-out would become an I/O error.
func options(cfg Config) map[string]string {
	seconds := func(def time.Duration) string {
		if cfg.Timeout > 0 {
			def = cfg.Timeout
		}
		return strconv.Itoa(int(math.Ceil(def.Seconds())))
	}
	set := map[string]string{
		"client_mount_timeout": seconds(mountTimeout),
		"rados_mon_op_timeout": seconds(monTimeout),
		"rados_osd_op_timeout": seconds(osdTimeout),
		"rbd_cache":            "false", // each write of ours is a whole chunk,
		// sent from the buffer that it is in.
		"rbd_disable_zero_copy_writes": "false",
		// The [client] section is written for guests: these would leave a log
		// and a socket in their folder. Nor may librados write to our stderr.
		"log_file":      "",
		"admin_socket":  "",
		"log_to_stderr": "false",
		"err_to_stderr": "false",
	}
	if cfg.Keyring != "" {
		set["keyring"] = cfg.Keyring
	}
	return set
}

// readable opens and closes a file: its mode alone does not say.
func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return pe.Err
		}
		return err
	}
	return f.Close()
}

// checkKeyring looks for the user's keyring before librados does, which would
// only say "No such file or directory".
func (c *Cluster) checkKeyring() error {
	for _, option := range []string{"key", "keyfile"} {
		if v, _ := c.conn.GetConfigOption(option); v != "" {
			return nil
		}
	}
	files := c.Keyrings()
	for _, f := range files {
		switch err := readable(f); {
		case err == nil:
			return nil
		case !errors.Is(err, fs.ErrNotExist):
			return invalid("keyring "+f, "%v", err)
		}
	}
	return invalid("keyring of client."+c.user, "no such file: %s", strings.Join(files, ", "))
}

// Keyrings are the files in which the user's key may be, in the order in which
// librados looks.
func (c *Cluster) Keyrings() []string {
	list, _ := c.conn.GetConfigOption("keyring")
	return strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(",; ", r) })
}

// explainConnect turns what Connect returned into what the user can do.
func (c *Cluster) explainConnect(err error) error {
	e := translate("connect to", "Ceph", err)
	hosts, _ := c.conn.GetConfigOption("mon_host")
	switch {
	case is(e, ErrTimeout):
		e.Reason = fmt.Sprintf("no answer from a monitor (%s) in time", hosts)
	case is(e, ErrNotFound), is(e, ErrPermission) && !c.inKeyring():
		e.Kind = ErrInvalid
		e.Reason = fmt.Sprintf("no key of client.%s in %s", c.user, strings.Join(c.Keyrings(), ", "))
	case errno(err) == syscall.EIO || errno(err) == syscall.EISDIR: // what librados says of a keyring that it cannot read
		e.Kind = ErrInvalid
		e.Reason = fmt.Sprintf("no usable key of client.%s in %s", c.user, strings.Join(c.Keyrings(), ", "))
	case is(e, ErrPermission):
		e.Reason = fmt.Sprintf("the monitors (%s) refuse the key of client.%s", hosts, c.user)
	}
	return e
}

// inKeyring says whether the user has a section in a keyring, or its key comes
// from elsewhere.
func (c *Cluster) inKeyring() bool {
	found := false
	for _, f := range c.Keyrings() {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if found = true; bytes.Contains(text, []byte("[client."+c.user+"]")) {
			return true
		}
	}
	return !found
}

// Close ends the connection. Nothing of the cluster may be in use. What was left to
// itself, see [Cluster.Fill], keeps it until it is over.
func (c *Cluster) Close() {
	c.presence.end()
	c.shutdown()
}

// Conf is the absolute path of the ceph.conf in use.
func (c *Cluster) Conf() string { return c.conf }

// User is the cephx user, without "client.".
func (c *Cluster) User() string { return c.user }

// FSID is the cluster's UUID.
func (c *Cluster) FSID() string { return c.fsid }

// Option is the value that ceph.conf (with CEPH_ARGS) gives an option. Time-outs,
// rbd_cache and logging are vmdisk's own and not the file's.
func (c *Cluster) Option(name string) (string, error) {
	v, err := c.conn.GetConfigOption(name)
	return v, wrap("read option", name, err)
}

// Monitor is the address of one monitor.
type Monitor struct {
	Host string // IP address
	Port string
}

// Monitors reads the addresses from the live monitor map, one a monitor: the v2
// address, or v1 where a monitor has no other. v2 is what keeps the encryption
// that ms_client_mode may ask for.
//
// Similar to: ceph mon dump.
func (c *Cluster) Monitors(ctx context.Context) ([]Monitor, error) {
	out, err := c.command(ctx, map[string]any{"prefix": "mon dump"})
	if err != nil {
		return nil, wrap("read monitors of", "Ceph", err)
	}
	return parseMonitors(out)
}

func parseMonitors(dump []byte) ([]Monitor, error) {
	mons, err := parseMonMap(dump)
	if err != nil {
		return nil, err
	}
	var all []Monitor
	for _, mon := range mons {
		best := ""
		for _, a := range mon.Addrs.Vec {
			if a.Type == "v2" || best == "" {
				best = a.Addr
			}
		}
		host, port, err := net.SplitHostPort(best)
		if err != nil {
			return nil, wrap("read address of monitor", mon.Name, err)
		}
		all = append(all, Monitor{Host: host, Port: port})
	}
	if len(all) == 0 {
		return nil, &Error{Op: "read monitors of", Object: "Ceph", Kind: ErrNotFound}
	}
	return all, nil
}

// monMapEntry is a monitor as "mon dump" shows it.
type monMapEntry struct {
	Name  string
	Addrs struct {
		Vec []struct{ Type, Addr string } `json:"addrvec"`
	} `json:"public_addrs"`
}

func parseMonMap(dump []byte) ([]monMapEntry, error) {
	var monmap struct{ Mons []monMapEntry }
	err := json.Unmarshal(dump, &monmap)
	return monmap.Mons, wrap("read monitors of", "Ceph", err)
}

// HasMonitor says whether one of the addresses, HOST:PORT of v2 or v1, is a monitor's of
// the cluster.
func (c *Cluster) HasMonitor(ctx context.Context, addrs ...string) (bool, error) {
	out, err := c.command(ctx, map[string]any{"prefix": "mon dump"})
	if err != nil {
		return false, wrap("read monitors of", "Ceph", err)
	}
	mons, err := parseMonMap(out)
	for _, mon := range mons {
		for _, a := range mon.Addrs.Vec {
			if slices.Contains(addrs, a.Addr) {
				return true, nil
			}
		}
	}
	return false, err
}

// pool runs f with a pool opened.
func (c *Cluster) pool(ctx context.Context, pool string, f func(*rados.IOContext) error) error {
	if err := ctx.Err(); err != nil {
		return wrap("open pool", pool, err)
	}
	io, err := c.openPool(pool)
	if err != nil {
		return err
	}
	defer io.Destroy()
	return c.explainCaps(pool, f(io))
}

// explainCaps says which cap the user lacks.
func (c *Cluster) explainCaps(pool string, err error) error {
	var e *Error
	if errors.As(err, &e) && e.Err != nil && e.Reason == "" && is(e, ErrPermission) {
		e.Reason = fmt.Sprintf("permission denied: client.%s needs the cap osd 'profile rbd pool=%s'", c.user, pool)
	}
	return err
}

// openPool is a pool for the caller to destroy. A pool that is full, or over its
// quota, is an error there and not a wait; what only removes is let through.
func (c *Cluster) openPool(pool string) (*rados.IOContext, error) {
	// If the pool is not known, librados asks a monitor for a newer map.
	var io *rados.IOContext
	err := c.within(context.Background(), func() (err error) {
		io, err = c.conn.OpenIOContext(pool)
		return err
	})
	if err != nil {
		e := translate("open", "pool "+pool, err)
		if is(e, ErrNotFound) {
			e.Reason = noPool(pool).Reason
		}
		return nil, e
	}
	if err := io.SetPoolFullTry(); err != nil {
		io.Destroy()
		return nil, wrap("open", "pool "+pool, err)
	}
	return io, nil
}

// within ends a wait for the monitors that librados would not end. The call is left
// to itself.
func (c *Cluster) within(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	select {
	case err := <-c.leave(f):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// view runs f with an image (or its snapshot) opened read-only, so that we
// neither take its lock nor count among its watchers.
func (c *Cluster) view(ctx context.Context, n Name, f func(*rbd.Image) error) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		img, err := openImage(io, n, rbd.OpenImageReadOnly)
		if err != nil {
			return err
		}
		defer c.closeLater(img)
		return f(img)
	})
}

// edit runs f with an image opened for writing.
func (c *Cluster) edit(ctx context.Context, n Name, f func(*rbd.Image) error) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		img, err := openImage(io, Name{Pool: n.Pool, Image: n.Image}, rbd.OpenImage)
		if err != nil {
			return err
		}
		defer closeImage(img, time.Now())
		return f(img)
	})
}
