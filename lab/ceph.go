// The cluster: one monitor, one manager, OSDs, pools and users, made and started
// in the order in which they need each other.

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

const (
	partMon = "mon.a"
	partMgr = "mgr.a"
)

func partOSD(i int) string { return fmt.Sprintf("osd.%d", i) }

// cephUp makes the cluster and returns when it is healthy.
func (l *Lab) cephUp(ctx context.Context) error {
	began := time.Now()
	l.report("ceph: making a cluster, %d OSD on %s", l.state.OSDs, l.state.Store)
	if err := l.makeMon(ctx); err != nil {
		return err
	}
	if err := l.start(ctx, l.cephDaemon(partMon)); err != nil {
		return err
	}
	l.report("ceph: monitor answers: %.1f s", time.Since(began).Seconds())
	if err := l.hurryMon(ctx, true); err != nil {
		return err
	}
	err := parallel(ctx,
		func(ctx context.Context) error { return l.start(ctx, l.cephDaemon(partMgr)) },
		func(ctx context.Context) error { return l.osdsAndPools(ctx, began) })
	if err != nil {
		return err
	}
	if err := l.healthOK(ctx); err != nil {
		return err
	}
	l.report("ceph: HEALTH_OK: %.1f s", time.Since(began).Seconds())
	if l.state.Bare || l.state.Hurried {
		return nil // there is much to make yet
	}
	return l.hurryMon(ctx, false)
}

// hurryMon has the monitor collect changes for a moment only instead of a
// second, while there are many to make one after the other. Afterwards it must
// be as slow as any, for a lab is for measuring, too; unless it was asked to stay
// hurried, or is bare.
func (l *Lab) hurryMon(ctx context.Context, hurry bool) error {
	var errs []error
	for _, name := range []string{"paxos_propose_interval", "paxos_min_wait"} {
		c := command{"prefix": "config unset", "var": name}
		if hurry {
			c = command{"prefix": "config set", "var": name, "val": []string{"0.01"}}
		}
		var answer struct{ Success string }
		errs = append(errs, ask(ctx, l.socket(partMon), c, &answer))
	}
	return errors.Join(errs...)
}

// osdsAndPools registers and starts the OSDs and makes the pools.
func (l *Lab) osdsAndPools(ctx context.Context, began time.Time) error {
	var script []string
	// A pool of its own for the health of devices that are not there.
	script = append(script, "config set mgr mgr/devicehealth/enable_monitoring false --force")
	uuids := make([]string, l.state.OSDs)
	for i := range uuids {
		uuids[i] = newUUID()
		script = append(script, fmt.Sprintf("osd new %s %d", uuids[i], i))
	}
	if err := l.cephScript(ctx, script); err != nil {
		return err
	}
	var steps []func(context.Context) error
	if !l.state.Bare {
		steps = append(steps, l.makePools)
	}
	for i, uuid := range uuids {
		steps = append(steps, func(ctx context.Context) error { return l.osdUp(ctx, i, uuid) })
	}
	if err := parallel(ctx, steps...); err != nil {
		return err
	}
	l.report("ceph: OSDs and pools are there: %.1f s", time.Since(began).Seconds())
	return nil
}

// makeMon makes the keys, the monitor map and the monitor's database.
func (l *Lab) makeMon(ctx context.Context) error {
	keyring, err := l.writeKeyrings()
	if err != nil {
		return err
	}
	monmap := l.ceph("initial.monmap")
	if _, err := run(ctx, "monmaptool", "--create", "--fsid", l.FSID, "--addv", "a", l.monAddr(), monmap); err != nil {
		return err
	}
	_, err = run(ctx, "ceph-mon", "-c", l.Conf, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(monmap), os.Remove(keyring))
}

// osdUp makes the store of a registered OSD and starts it.
func (l *Lab) osdUp(ctx context.Context, i int, uuid string) error {
	if _, err := run(ctx, "ceph-osd", "-c", l.Conf, "--mkfs", "-i", fmt.Sprint(i), "--osd-uuid", uuid); err != nil {
		return err
	}
	return l.start(ctx, l.cephDaemon(partOSD(i)))
}

// makePools makes the pools and marks them for RBD. It waits for an OSD only in
// the end, so it can run while one starts.
func (l *Lab) makePools(ctx context.Context) error {
	var script []string
	for _, pool := range pools {
		script = append(script, "osd pool create "+pool+" 8")
	}
	if err := l.cephScript(ctx, script); err != nil {
		return err
	}
	var steps []func(context.Context) error
	for _, pool := range pools {
		steps = append(steps, func(ctx context.Context) error {
			_, err := l.client(ctx, nil, "rbd", "admin", "pool", "init", pool)
			return err
		})
	}
	return parallel(ctx, steps...)
}

// healthOK waits until the cluster says that it is healthy.
func (l *Lab) healthOK(ctx context.Context) error {
	return until(ctx, func() error {
		out, err := l.cephCommand(ctx, "health", "detail")
		if err != nil {
			return err
		}
		if health := strings.TrimSpace(string(out)); health != "HEALTH_OK" {
			return errors.New(health)
		}
		return nil
	})
}

// cephDaemon returns how a daemon of the cluster is started.
func (l *Lab) cephDaemon(part string) daemon {
	kind, id, _ := strings.Cut(part, ".")
	d := daemon{
		part: part,
		argv: []string{"ceph-" + kind, "-f", "-c", l.Conf, "-i", id},
		out:  l.ceph("log/" + part + ".out"),
		log:  l.ceph("log/" + part + ".log"),
	}
	d.ready = func(ctx context.Context) error { return l.cephAnswers(ctx, part) }
	return d
}

// cephAnswers returns nil if a daemon does its work: the monitor leads, the OSD
// is active, the manager is the active one.
func (l *Lab) cephAnswers(ctx context.Context, part string) error {
	var status struct{ State string }
	prefix, want := "status", "active"
	switch part {
	case partMon:
		prefix, want = "mon_status", "leader"
	case partMgr:
		prefix, want = "mgr_status", "" // known to an active manager only
	}
	if err := ask(ctx, l.socket(part), command{"prefix": prefix}, &status); err != nil {
		return err
	}
	if status.State != want {
		return fmt.Errorf("%s is %s, not %s", part, status.State, want)
	}
	return nil
}

func (l *Lab) socket(part string) string { return l.ceph("run/" + part + ".asok") }

// cephCommand runs the ceph command as client.admin.
func (l *Lab) cephCommand(ctx context.Context, args ...string) ([]byte, error) {
	return l.client(ctx, nil, "ceph", "admin", args...)
}

// cephScript runs several commands of ceph in one process, as its start costs
// more than they do. In this mode ceph exits with 0 whatever happens and tells
// of errors in words.
func (l *Lab) cephScript(ctx context.Context, lines []string) error {
	out, err := l.client(ctx, strings.NewReader(strings.Join(lines, "\n")+"\n"), "ceph", "admin")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "Error ") {
			return fmt.Errorf("ceph: %s:%s", strings.Join(lines, "; "), lastLines(string(out)))
		}
	}
	return nil
}

// client runs a Ceph client as a user, without the log and the socket that
// ceph.conf would have it leave in the guests' folders. With in given, what it
// says of errors is returned, too.
func (l *Lab) client(ctx context.Context, in io.Reader, program, user string, args ...string) ([]byte, error) {
	return runCommand(ctx, execution{
		argv: append([]string{program, "-c", l.Conf, "--id", user}, args...),
		env:  []string{"CEPH_ARGS=--log-file= --admin-socket="},
		in:   in,
		both: in != nil,
	})
}
