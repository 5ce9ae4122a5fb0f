// Copying a disk of a running machine to another place, while the guest writes it.

package domain

import (
	"context"
	"errors"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// BlockCopy says how a disk is copied.
type BlockCopy struct {
	VM, Target string
	To         string // the XML of a disk, of [Disk.XML] or [FileXML]: its source and format
	// Shallow is that the destination has what is in the backing files: what is above
	// them is copied.
	Shallow   bool
	Bandwidth int64 // bytes a second; 0 is no limit
}

// copyBuffer is how many bytes QEMU has on their way at most. It makes requests of a
// 16th of that: those of an RBD object. QEMU's own 16 MiB make four times as many.
const copyBuffer = 64 << 20

// FileXML is a file as a copy's destination.
func FileXML(target, file, format string) (string, error) {
	d := fileDisk(target, file, format)
	return d.Marshal()
}

func fileDisk(target, file, format string) libvirtxml.DomainDisk {
	return libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: format},
		Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: file}},
		Target: &libvirtxml.DomainDiskTarget{Dev: target},
	}
}

// StartCopy begins to copy a disk of a running machine to what is there and as large,
// and returns at once. The guest goes on with what it has until [Pivot]. The machine
// may be undefined meanwhile, but not be saved or moved; should it end, so does the copy.
//
// Similar to: virsh blockcopy --xml --reuse-external --transient-job [--shallow].
func StartCopy(ctx context.Context, conn *libvirt.Connect, c BlockCopy) error {
	params := &libvirt.DomainBlockCopyParameters{BufSizeSet: true, BufSize: copyBuffer}
	if c.Bandwidth > 0 {
		params.BandwidthSet, params.Bandwidth = true, uint64(c.Bandwidth)
	}
	flags := libvirt.DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.DOMAIN_BLOCK_COPY_TRANSIENT_JOB
	if c.Shallow {
		flags |= libvirt.DOMAIN_BLOCK_COPY_SHALLOW
	}
	return with(ctx, conn, c.VM, func(d *libvirt.Domain) error {
		return wrap("copy "+c.Target+" of", c.VM, d.BlockCopy(c.Target, c.To, params, flags))
	})
}

// CopyPause is how long a copy that is held to a rate may rest between two requests.
func CopyPause(bandwidth int64) time.Duration {
	if bandwidth == 0 {
		return 0
	}
	return time.Duration(float64(2*copyBuffer) / float64(bandwidth) * float64(time.Second))
}

// CopyProgress says how many bytes of a copy are done, and of how many; what the guest
// writes makes them more. If they are equal, both sides are. No copy is [ErrNotFound]:
// it has failed.
//
// Similar to: virsh blockjob --info.
func CopyProgress(ctx context.Context, conn *libvirt.Connect, vm, target string) (done, total int64, err error) {
	type progress struct{ done, total int64 }
	p, err := read(ctx, conn, vm, func(d *libvirt.Domain) (p progress, err error) {
		info, err := d.GetBlockJobInfo(target, 0)
		if err != nil {
			return p, wrap("inspect copy of "+target+" of", vm, err)
		}
		if info.Type != libvirt.DOMAIN_BLOCK_JOB_TYPE_COPY {
			return p, &Error{Op: "copy " + target + " of", Object: vm, Kind: ErrNotFound, Err: errNoJob, Reason: "QEMU has given it up"}
		}
		return progress{int64(info.Cur), int64(info.End)}, nil
	})
	return p.done, p.total, err
}

// Pivot has a machine go on with the copy of its disk, of which nothing may be missing
// any more: until then, or until ctx ends, it waits.
//
// Similar to: virsh blockjob --pivot.
func Pivot(ctx context.Context, conn *libvirt.Connect, vm, target string) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		for {
			err := d.BlockJobAbort(target, libvirt.DOMAIN_BLOCK_JOB_ABORT_PIVOT)
			if !errors.Is(err, libvirt.ERR_BLOCK_COPY_ACTIVE) {
				return wrap("pivot "+target+" of", vm, err)
			}
			if err := pause(ctx); err != nil {
				return wrap("pivot "+target+" of", vm, err)
			}
		}
	})
}

const (
	// abortTime is how long QEMU may take to end a copy.
	abortTime = 15 * time.Second
	// movesTime is how long nothing of a copy may move that is to be aborted.
	movesTime = 3 * time.Second
)

// AbortCopy ends a copy: the machine goes on with what it has. None is fine. One in
// which nothing moves, because its destination takes nothing, is left alone, which is
// [ErrTimeout]: while it is copied the guest notices nothing of that, but to end the copy
// QEMU waits for what it has sent, and the guest stands still with it (QEMU 7.2).
//
// Similar to: virsh blockjob --abort --async.
func AbortCopy(ctx context.Context, conn *libvirt.Connect, vm, target string) error {
	ctx, cancel := context.WithTimeout(ctx, abortTime)
	defer cancel()
	err := with(ctx, conn, vm, func(d *libvirt.Domain) error {
		first, begin, asked := uint64(0), time.Now(), false
		for i := 0; ; i++ {
			info, err := d.GetBlockJobInfo(target, 0)
			if errors.Is(err, libvirt.ERR_OPERATION_INVALID) { // it does not run
				return nil
			}
			if err != nil || info.Type == libvirt.DOMAIN_BLOCK_JOB_TYPE_UNKNOWN {
				return wrap("inspect copy of "+target+" of", vm, err)
			}
			if i == 0 {
				first = info.Cur
				// Held to a rate it may sleep for minutes; without one it shows what it can.
				_ = d.BlockJobSetSpeed(target, 0, 0)
			}
			moves := info.Cur != first || info.Cur == info.End
			switch {
			case asked:
			case moves:
				asked = true
				err := d.BlockJobAbort(target, libvirt.DOMAIN_BLOCK_JOB_ABORT_ASYNC)
				if err != nil && !errors.Is(err, libvirt.ERR_OPERATION_INVALID) && !errors.Is(err, libvirt.ERR_INVALID_ARG) {
					return wrap("abort copy of "+target+" of", vm, err)
				}
			case time.Since(begin) > movesTime:
				return &Error{Op: "abort copy of " + target + " of", Object: vm, Kind: ErrTimeout,
					Reason: "nothing of it moves; the guest would stand still until it does"}
			}
			if err := pause(ctx); err != nil {
				return wrap("abort copy of "+target+" of", vm, err)
			}
		}
	})
	return ignore(err, ErrNotFound)
}
