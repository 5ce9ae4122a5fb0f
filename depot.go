// Depots: the hosts that may take a machine, and what memory each has left.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
)

// depot is a choice of destinations.
type depot struct {
	mu    sync.Mutex
	hosts []*place
}

// place is one destination.
type place struct {
	host, uri string
	free      int64 // bytes that are not promised to a machine
}

// open asks each destination what it has. One that does not answer is told of, and
// left out; if none does, that is the error.
func (p *depot) open(ctx context.Context, h *Host, from string, to []string) error {
	var silent []error
	for _, dest := range to {
		one, err := h.askPlace(ctx, dest)
		switch {
		case errors.Is(err, domain.ErrUnreachable), errors.Is(err, domain.ErrTimeout):
			silent = append(silent, err)
			h.emit(Event{Kind: Warning, Op: "drain", Object: from, Detail: dest + " is left out: " + err.Error(), Err: err})
			continue
		case err != nil:
			return err
		case one.host == from:
			return fmt.Errorf("%s is the host to be drained: %w", dest, migrate.ErrSameHost)
		case slices.ContainsFunc(p.hosts, func(other *place) bool { return other.host == one.host }):
			continue
		}
		p.hosts = append(p.hosts, one)
	}
	if len(p.hosts) == 0 {
		return errors.Join(silent...)
	}
	return nil
}

func (h *Host) askPlace(ctx context.Context, dest string) (*place, error) {
	uri, err := domain.RemoteURI(h.cfg.URI, dest)
	if err != nil {
		return nil, err
	}
	conn, err := domain.Connect(ctx, uri, h.cfg.Timeout)
	if err != nil {
		return nil, err
	}
	defer func() { _, _ = domain.Close(ctx, conn) }()
	name, err := domain.Hostname(ctx, conn)
	if err != nil {
		return nil, err
	}
	memory, err := domain.HostMemory(ctx, conn)
	return &place{host: name, uri: uri, free: memory.Free}, err
}

// take promises memory of the destination with the most left, of those that have not
// refused the machine. One that is off needs none yet.
func (p *depot) take(memory int64, off bool, refused []string) (*place, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *place
	for _, one := range p.hosts {
		if !slices.Contains(refused, one.host) && (best == nil || one.free > best.free) {
			best = one
		}
	}
	if best == nil || !off && best.free < memory {
		return nil, &fullError{memory, p.String()}
	}
	best.free -= memory
	return best, nil
}

// giveBack returns what was promised to a machine that did not come.
func (p *depot) giveBack(to *place, memory int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to.free += memory
}

// String lists the destinations with what each has left.
func (p *depot) String() string {
	var all []string
	for _, one := range p.hosts {
		all = append(all, one.host+" "+disk.FormatSize(max(0, one.free)))
	}
	return strings.Join(all, ", ")
}

// fullError is a machine that no destination has the memory for.
type fullError struct {
	memory int64
	free   string
}

func (e *fullError) Error() string {
	return fmt.Sprintf("needs %s of memory, free are: %s", disk.FormatSize(e.memory), e.free)
}

// Unwrap is what kind of error it is.
func (e *fullError) Unwrap() error { return migrate.ErrUnfit }
