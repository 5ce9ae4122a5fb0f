// A process of the lab: told apart from every other by its pid and start time,
// started so that it outlives who started it, signalled only while it is itself.

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// mark is the variable in the environment of every daemon of a lab: its value
// is the lab's directory and identity. It finds daemons that were started but
// not yet recorded when Up was killed.
const mark = "VMDISK_LAB"

// process is a process that cannot be confused with a later one of its pid.
type process struct {
	PID int `json:"pid"`
	// Start is when it began, in clock ticks since boot.
	Start uint64 `json:"start"`
}

// identify returns the process that has this pid now.
func identify(pid int) (process, error) {
	start, _, err := stat(pid)
	return process{PID: pid, Start: start}, err
}

// stat returns the start time and the state letter of a process, from
// /proc/PID/stat: see proc(5). One whose first thread has ended is a zombie only when
// the last one has: until then it keeps its files and the locks on them.
func stat(pid int) (start uint64, letter byte, err error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, 0, err
	}
	// The name, field 2, may hold spaces and parentheses: count from its end.
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: not understood", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	letter = fields[0][0]
	if threads := fields[17]; letter == 'Z' && threads != "1" && threads != "0" { // none while it is reaped
		letter = 'R'
	}
	return start, letter, err
}

// condition says whether the process runs, is frozen, or is dead. A zombie is
// dead: it can do no harm and keeps nothing.
func (p process) condition() Condition {
	if p.PID <= 0 {
		return Dead
	}
	start, letter, err := stat(p.PID)
	switch {
	case err != nil || start != p.Start || letter == 'Z' || letter == 'X':
		return Dead
	case letter == 'T' || letter == 't':
		return Frozen
	}
	return Running
}

// signal sends a signal, or does nothing if the process is dead. The handle is
// opened before the start time is compared, so the signal cannot reach a later
// process of the same pid.
func (p process) signal(sig syscall.Signal) error {
	handle, err := os.FindProcess(p.PID)
	if err != nil {
		return err
	}
	defer func() { _ = handle.Release() }()
	if p.condition() == Dead {
		return nil
	}
	if err := handle.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %v to pid %d: %w", sig, p.PID, err)
	}
	return nil
}

// gone waits until the process is dead.
func (p process) gone(ctx context.Context) error {
	err := until(ctx, func() error {
		if c := p.condition(); c != Dead {
			return fmt.Errorf("pid %d is %s", p.PID, c)
		}
		return nil
	})
	return err
}

// daemon is how one of the lab's daemons is started, and when it is ready.
type daemon struct {
	part string
	argv []string
	// out is the file that its standard output and error are added to.
	out string
	// log is the file whose tail explains its death, if it is not out.
	log string
	// files are what it inherits from descriptor 3 on.
	files []*os.File
	// clone are namespaces that it gets of its own.
	clone uintptr
	// ready returns nil as soon as the daemon does its work.
	ready func(context.Context) error
}

// start starts a daemon in the background, records it and waits until it is
// ready. The daemon outlives this process.
func (l *Lab) start(ctx context.Context, d daemon) error {
	p, err := l.spawn(d)
	if err != nil {
		return fmt.Errorf("%s: %w", d.part, err)
	}
	if err := l.state.record(d.part, p); err != nil {
		return err
	}
	err = until(ctx, func() error {
		if p.condition() == Dead {
			return final(errors.New("it ended"))
		}
		return d.ready(ctx)
	})
	if err != nil {
		return fmt.Errorf("%s does not get ready: %w%s%s", d.part, err, tail(d.out), tail(d.log))
	}
	return nil
}

// spawn starts a daemon's process.
func (l *Lab) spawn(d daemon) (process, error) {
	path, err := program(d.argv[0])
	if err != nil {
		return process{}, err
	}
	out, err := os.OpenFile(d.out, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return process{}, err
	}
	defer out.Close()
	cmd := &exec.Cmd{
		Path: path, Args: d.argv, Dir: "/", Stdout: out, Stderr: out, ExtraFiles: d.files,
		Env: append(os.Environ(), "LC_ALL=C", mark+"="+l.markValue()),
		// A session of its own: Ctrl-C at the terminal is not for the daemons.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Cloneflags: d.clone},
	}
	if err := cmd.Start(); err != nil {
		return process{}, err
	}
	p, err := identify(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }() // so that it leaves no zombie while this process lives
	if err != nil {
		return process{}, fmt.Errorf("it ended at once: %w%s", err, tail(d.out))
	}
	return p, nil
}

func (l *Lab) markValue() string { return l.FSID + ":" + l.Dir }
