// Ports: each lab has a block of its own, found free, so that two labs on one
// machine never meet.

package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
)

// A block of ports, relative to its base. The base itself is only a guard: a
// host's holder keeps a socket bound to it as long as the lab lives, so that
// the kernel decides which of two labs has the block.
const (
	portMonV2     = 1
	portMonV1     = 2
	portLibvirt   = 3
	portTLS       = portLibvirt + maxHosts
	portMigration = portTLS + maxHosts
	portDisplay   = portMigration + maxHosts*portsMigration
	portCeph      = portDisplay + maxHosts*portsDisplay

	// What each host has.
	portsMigration = 20
	portsDisplay   = 10
	// OSDs take 8 each and the manager 2, twice over at restarts.
	portsCeph  = 180
	portsBlock = portCeph + portsCeph

	// Blocks are sought below the range from which the kernel takes ports for
	// outgoing connections, as those come and go.
	portsFirst = 12000
	portsLast  = 32000
)

// reservePorts finds a free block, notes its base in the state and returns the
// guard, which must stay open until a daemon has inherited it.
func reservePorts(s *state) (*os.File, error) {
	blocks := rand.Perm((portsLast - portsFirst) / portsBlock)
	for _, n := range blocks {
		base := portsFirst + n*portsBlock
		guard, err := bind(base)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("lab: looking for free ports: %w", err)
		}
		if allFree(base) {
			s.BasePort = base
			return guard, s.save()
		}
		guard.Close()
	}
	return nil, fmt.Errorf("lab: no %d free ports in a row between %d and %d", portsBlock, portsFirst, portsLast)
}

// bind takes a port on all addresses without listening on it.
func bind(port int) (*os.File, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port}); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "ports"), nil
}

// allFree says whether the ports of a block, but for its guard, can be had.
func allFree(base int) bool {
	for port := base + 1; port < base+portsBlock; port++ {
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
