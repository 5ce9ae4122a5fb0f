// What the lab's hosts send each other, as it is on the wire.

package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"unsafe"
)

// Capture reads every packet to and from the hosts' libvirtds and migrations. It
// holds a socket and a goroutine until Stop.
type Capture struct {
	pattern []byte
	fd      int
	ended   chan struct{}
	stop    func() error
	streams map[stream]*position
	seen    Captured
	err     error
}

// Captured is what was on the wire.
type Captured struct {
	// Bytes is how much TCP carried, in both directions.
	Bytes int64
	// Found is how often the pattern was in it, also over the edges of packets.
	Found int
}

// stream is one direction of a TCP connection.
type stream struct {
	from, to         [4]byte
	fromPort, toPort uint16
}

// position is how far a stream has come.
type position struct {
	next uint32 // sequence number
	end  []byte // the last bytes before it, in which the pattern may have begun
}

const (
	// captureBuffer holds what comes while this process does not run, in bytes.
	captureBuffer = 256 << 20
	maxPacket     = 1 << 18
	// lookEvery is how long a read waits before it looks whether to end, in µs.
	lookEvery = 50000

	packetStatistics = 6 // PACKET_STATISTICS of linux/if_packet.h
)

// Capture begins to look for a pattern in all that hosts of the lab send each other:
// migrations, and libvirt, encrypted or not. What else is on the loopback device,
// such as Ceph's traffic and guests' disks with it, does not count. End it with Stop.
//
// That a pattern was not found proves something only if the same test finds it when
// it is there. Similar to: tcpdump -i lo.
func (l *Lab) Capture(pattern []byte) (*Capture, error) {
	if len(pattern) == 0 {
		return nil, errors.New("lab: capture: no pattern given")
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, fmt.Errorf("lab: capture: %w", err)
	}
	// Bound to no protocol at first, so that nothing comes before the filter is set.
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lab: capture: %w", os.NewSyscallError("socket", err))
	}
	c := &Capture{pattern: bytes.Clone(pattern), fd: fd, ended: make(chan struct{}), streams: map[stream]*position{}}
	first := l.state.BasePort + portLibvirt
	err = errors.Join(
		os.NewSyscallError("SO_RCVBUFFORCE", syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, captureBuffer)),
		os.NewSyscallError("SO_RCVTIMEO", syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: lookEvery})),
		attach(fd, portFilter(uint32(first), uint32(l.state.BasePort+portDisplay-1))),
		os.NewSyscallError("bind", syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: networkOrder(syscall.ETH_P_IP), Ifindex: lo.Index})))
	if err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("lab: capture: %w", err)
	}
	stop := make(chan struct{})
	c.stop = sync.OnceValue(func() error {
		close(stop)
		<-c.ended
		return c.err
	})
	go c.read(stop)
	return c, nil
}

// Stop ends the capture once all that was sent until now has been looked at, and
// tells what it was. The error is not nil if packets were lost: then what was not
// found may yet have been there. It may be called again, and then says the same.
func (c *Capture) Stop() (Captured, error) {
	err := c.stop()
	return c.seen, err
}

// read looks at packets until it is told to stop and none is left.
func (c *Capture) read(stop <-chan struct{}) {
	defer close(c.ended)
	defer syscall.Close(c.fd)
	buf := make([]byte, maxPacket)
	stopping := false
	for {
		select {
		case <-stop:
			if !stopping { // from here on the kernel queues nothing more
				stopping = true
				c.err = attach(c.fd, []syscall.SockFilter{bpf(syscall.BPF_RET, 0, 0)})
			}
		default:
		}
		n, _, err := syscall.Recvfrom(c.fd, buf, syscall.MSG_TRUNC)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			if stopping {
				c.err = errors.Join(c.err, c.lost())
				return
			}
		case err != nil:
			c.err = fmt.Errorf("lab: capture: %w", os.NewSyscallError("recvfrom", err))
			return
		case n > len(buf):
			c.err = fmt.Errorf("lab: capture: a packet of %d bytes", n)
			return
		default:
			c.packet(buf[:n])
		}
	}
}

// lost says whether the kernel threw packets away because they came too fast.
func (c *Capture) lost() error {
	// struct tpacket_stats is two numbers of 4 bytes, as this is.
	b, err := syscall.GetsockoptIPMreq(c.fd, syscall.SOL_PACKET, packetStatistics)
	if err != nil {
		return fmt.Errorf("lab: capture: %w", os.NewSyscallError("PACKET_STATISTICS", err))
	}
	if n := binary.NativeEndian.Uint32(b.Interface[:]); n > 0 {
		return fmt.Errorf("lab: capture: %d packets were lost", n)
	}
	return nil
}

// packet looks at one packet, from its IP header on. The filter let it pass.
func (c *Capture) packet(b []byte) {
	total, ip := int(binary.BigEndian.Uint16(b[2:])), int(b[0]&15)*4
	if total > 0 && total < len(b) { // 0 is one too big to say
		b = b[:total]
	}
	if len(b) < ip+20 {
		return
	}
	tcp := b[ip:]
	data := tcp[min(int(tcp[12]>>4)*4, len(tcp)):]
	if len(data) == 0 {
		return
	}
	s := stream{[4]byte(b[12:]), [4]byte(b[16:]), binary.BigEndian.Uint16(tcp), binary.BigEndian.Uint16(tcp[2:])}
	c.data(s, binary.BigEndian.Uint32(tcp[4:]), data)
}

// data looks at a piece of a stream. A piece that does not follow the last one is a
// new connection, or sent again: what was before it is not its beginning.
func (c *Capture) data(s stream, sequence uint32, data []byte) {
	p := c.streams[s]
	if p == nil {
		p = &position{}
		c.streams[s] = p
	}
	if p.next != sequence {
		p.end = p.end[:0]
	}
	keep := len(c.pattern) - 1 // a side of the edge this long cannot have it alone
	edge := slices.Concat(p.end, data[:min(keep, len(data))])
	c.seen.Bytes += int64(len(data))
	c.seen.Found += bytes.Count(data, c.pattern) + bytes.Count(edge, c.pattern)
	if len(data) > keep {
		edge = data
	}
	p.end = append(p.end[:0], edge[max(0, len(edge)-keep):]...)
	p.next = sequence + uint32(len(data))
}

// portFilter passes TCP packets over IPv4 from or to a range of ports. Each packet
// on the loopback device is seen going out and coming in: it passes the latter.
func portFilter(first, last uint32) []syscall.SockFilter {
	const (
		load      = syscall.BPF_LD | syscall.BPF_ABS
		ifEqual   = syscall.BPF_JMP | syscall.BPF_JEQ
		ifAtLeast = syscall.BPF_JMP | syscall.BPF_JGE
		ifAbove   = syscall.BPF_JMP | syscall.BPF_JGT
		port      = syscall.BPF_LD | syscall.BPF_H | syscall.BPF_IND
		// The offset at which the kernel answers what kind of packet it is.
		packetType = 0xfffff000 + 4
		protocol   = 9 // in the IP header
	)
	return []syscall.SockFilter{
		bpf(load|syscall.BPF_W, packetType, 0),
		bpf(ifEqual, syscall.PACKET_HOST, 9),
		bpf(load|syscall.BPF_B, protocol, 0),
		bpf(ifEqual, syscall.IPPROTO_TCP, 7),
		bpf(syscall.BPF_LDX|syscall.BPF_B|syscall.BPF_MSH, 0, 0), // X is the IP header's length
		bpf(port, 0, 0),
		bpf(ifAtLeast, first, 1),
		bpf(ifAbove, last, 4),
		bpf(port, 2, 0),
		bpf(ifAtLeast, first, 1),
		bpf(ifAbove, last, 1),
		bpf(syscall.BPF_RET, 0, 0),
		bpf(syscall.BPF_RET, maxPacket, 0),
	}
}

// bpf is an instruction. A jump skips so many of the next if its condition is false.
func bpf(code uint16, k uint32, skip uint8) syscall.SockFilter {
	return syscall.SockFilter{Code: code, Jf: skip, K: k}
}

// attach sets the filter that decides which packets a socket gets.
func attach(fd int, filter []syscall.SockFilter) error {
	program := syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := syscall.Syscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), syscall.SOL_SOCKET, syscall.SO_ATTACH_FILTER,
		uintptr(unsafe.Pointer(&program)), unsafe.Sizeof(program), 0)
	if errno != 0 {
		return fmt.Errorf("lab: capture: %w", os.NewSyscallError("SO_ATTACH_FILTER", errno))
	}
	return nil
}

// networkOrder is a number as it is on the wire.
func networkOrder(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}
