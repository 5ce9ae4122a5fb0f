// Asking a host that may not answer.

package domain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"syscall"
	"time"

	"libvirt.org/go/libvirt"
)

// ErrSilent is a host that was asked and gave no answer: nothing listens there, or
// what listens says nothing. It is an [ErrUnreachable] that is no mistake in how it
// was asked.
var ErrSilent = fmt.Errorf("no answer: %w", ErrUnreachable)

// ErrRefused is an [ErrSilent] whose computer lives: it says that nothing listens.
var ErrRefused = fmt.Errorf("nothing listens: %w", ErrSilent)

// Answer is what a host says of a machine.
type Answer struct {
	Host    string // what it calls itself
	Defined bool
	Condition
}

// Ask asks a host about a machine and waits for the answer, at most timeout. No
// answer is [ErrSilent]; a host that cannot be asked in this way (no such name, no
// credentials) is [ErrUnreachable] only.
//
// Similar to: virsh --connect URI domstate.
func Ask(ctx context.Context, uri, vm string, timeout time.Duration) (Answer, error) {
	conn, err := Connect(ctx, uri, timeout)
	if err != nil {
		return Answer{}, silent(uri, err)
	}
	late := time.NewTimer(timeout)
	defer late.Stop()
	type result struct {
		Answer
		err error
	}
	done := make(chan result, 1)
	go func() { // a call cannot be interrupted: its connection is left to it
		var r result
		r.Answer, r.err = answer(conn, vm)
		_, _ = conn.Close()
		done <- r
	}()
	select {
	case r := <-done:
		return r.Answer, r.err
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	case <-late.C:
		return Answer{}, &Error{Op: "ask", Object: uri, Kind: ErrSilent, Err: ErrTimeout,
			Reason: fmt.Sprintf("no answer within %v", timeout)}
	}
}

func answer(conn *libvirt.Connect, vm string) (a Answer, err error) {
	if a.Host, err = conn.GetHostname(); err != nil {
		return a, wrap("read name of", "host", err)
	}
	a.Condition, err = Inspect(context.Background(), conn, vm)
	switch {
	case errors.Is(err, ErrNotFound):
		a.State = "not defined"
		return a, nil
	case err != nil:
		return a, err
	}
	a.Defined = true
	return a, nil
}

// silent tells a host that does not answer from one that cannot be asked.
func silent(uri string, err error) error {
	var own *Error
	if !errors.As(err, &own) {
		return err
	}
	if errors.Is(err, ErrTimeout) {
		own.Kind = ErrSilent
	} else if u, parseErr := url.Parse(uri); parseErr == nil && u.Host != "" {
		own.Kind = knock(u)
	}
	return err
}

// knock says what an error means of the computer that a libvirt URI leads to.
func knock(u *url.URL) error {
	port := u.Port()
	if port == "" {
		port = map[string]string{"qemu+tcp": "16509", "qemu+ssh": "22"}[u.Scheme]
	}
	if port == "" {
		port = "16514"
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(u.Hostname(), port), time.Second)
	var unknown *net.DNSError
	switch {
	case err == nil:
		_ = conn.Close() // it was only to see
		return ErrUnreachable
	case errors.As(err, &unknown):
		return ErrUnreachable
	case errors.Is(err, syscall.ECONNREFUSED):
		return ErrRefused
	}
	return ErrSilent
}
