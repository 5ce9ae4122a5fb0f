// Connections to libvirt: opened in finite time, told apart by host.

package domain

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// DefaultURI is where a host's own machines are.
const DefaultURI = "qemu:///system"

// connectTimeout is how long a daemon may take to answer. A TCP connection to
// an address that drops packets would take two minutes to fail.
const connectTimeout = 10 * time.Second

// Connect opens a connection. It blocks until libvirtd answers, at most timeout
// (0 is 10 s) or until ctx ends. A daemon that refuses or does not answer is
// [ErrUnreachable], with [ErrTimeout] matching too in the latter case. The caller
// closes the connection. A call on it, too, may take timeout, or 60 s; see [Lost].
//
// Similar to: virsh --connect URI.
func Connect(ctx context.Context, uri string, timeout time.Duration) (*libvirt.Connect, error) {
	given := timeout
	if timeout == 0 {
		timeout = connectTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrTimeout)
	defer cancel()
	type result struct {
		conn *libvirt.Connect
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := libvirt.NewConnect(uri)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, &Error{Op: "connect to", Object: uri, Kind: ErrUnreachable, Err: r.err}
		}
		limit(r.conn, given)
		return r.conn, nil
	case <-ctx.Done():
		go func() { // the call cannot be interrupted, only waited for
			if r := <-done; r.conn != nil {
				_, _ = r.conn.Close()
			}
		}()
		if !errors.Is(context.Cause(ctx), ErrTimeout) {
			return nil, ctx.Err()
		}
		return nil, &Error{Op: "connect to", Object: uri, Kind: ErrUnreachable, Err: ErrTimeout,
			Reason: fmt.Sprintf("no answer within %v", timeout)}
	}
}

// Another opens a second connection to the daemon of the first. The caller closes
// it. Two calls at once on one connection can wait for each other.
func Another(ctx context.Context, conn *libvirt.Connect, timeout time.Duration) (*libvirt.Connect, error) {
	uri, err := conn.GetURI()
	if err != nil {
		return nil, wrap("read URI of", "connection", err)
	}
	return Connect(ctx, uri, timeout)
}

// Close closes a connection and says how many references to it are left. One that does
// not answer is left to itself.
func Close(ctx context.Context, conn *libvirt.Connect) (left int, err error) {
	return call(ctx, conn, "close", "connection", conn.Close)
}

// RemoteAddress is a connection's URI if it leads to its host from elsewhere too, or
// "".
func RemoteAddress(conn *libvirt.Connect) (string, error) {
	uri, err := conn.GetURI()
	if err != nil {
		return "", wrap("read URI of", "connection", err)
	}
	if u, err := url.Parse(uri); err != nil || u.Host == "" {
		return "", nil
	}
	return uri, nil
}

// RemoteURI is the libvirt URI for DEST: a URI is taken as it is; a host name
// gets the scheme and path of base, so that "compute2" from
// qemu+ssh://root@compute1/system is qemu+ssh://root@compute2/system.
func RemoteURI(base, dest string) (string, error) {
	if strings.Contains(dest, "://") {
		u, err := url.Parse(dest)
		if err != nil || u.Scheme == "" {
			return "", invalid("destination "+dest, "is not a libvirt URI")
		}
		return dest, nil
	}
	if dest == "" || dest[0] == '-' || strings.ContainsAny(dest, "/@ \t<>?#") {
		return "", invalid(fmt.Sprintf("destination %q", dest), "is neither a host name nor a libvirt URI")
	}
	u, err := url.Parse(base)
	if err != nil {
		return "", invalid("connection "+base, "is not a libvirt URI")
	}
	host := dest
	if port := u.Port(); port != "" && !strings.Contains(dest, ":") {
		host += ":" + port
	}
	return (&url.URL{Scheme: u.Scheme, User: u.User, Host: host, Path: u.Path, RawQuery: u.RawQuery}).String(), nil
}

// Node is what tells one host from another.
type Node struct {
	Hostname string
	UUID     string
	CPU      string // its model, as libvirt knows it
	Features string // what the CPU has besides
}

// DescribeNode asks a connection's host who it is.
func DescribeNode(ctx context.Context, conn *libvirt.Connect) (Node, error) {
	return call(ctx, conn, "describe", "host", func() (Node, error) { return describeNode(conn) })
}

func describeNode(conn *libvirt.Connect) (Node, error) {
	name, err := conn.GetHostname()
	if err != nil {
		return Node{}, wrap("read name of", "host", err)
	}
	text, err := conn.GetCapabilities()
	if err != nil {
		return Node{}, wrap("read capabilities of", name, err)
	}
	var caps libvirtxml.Caps
	if err := caps.Unmarshal(text); err != nil {
		return Node{}, wrap("read capabilities of", name, err)
	}
	n := Node{Hostname: name, UUID: caps.Host.UUID}
	if cpu := caps.Host.CPU; cpu != nil {
		var features []string
		for _, f := range cpu.FeatureFlags {
			features = append(features, f.Name)
		}
		slices.Sort(features)
		n.CPU, n.Features = cpu.Model, strings.Join(features, " ")
	}
	return n, nil
}
