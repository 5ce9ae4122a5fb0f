// How fast a disk may be: libvirt's iotune, in the XML that a disk is attached
// with and on a disk that is attached.

package domain

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// QoS limits a disk. 0 is no limit. Bytes are bytes a second, iops requests a
// second, of reads, of writes, or of both together (total, which excludes the other
// two). Max is what a burst may reach, for MaxLength seconds; SizeIopsSec is how
// many bytes count as one request. QEMU does the limiting, wherever the machine
// runs.
//
// Similar to: virsh blkdeviotune, whose words these are.
type QoS struct {
	TotalBytesSec          uint64 `json:"total_bytes_sec,omitempty"`
	ReadBytesSec           uint64 `json:"read_bytes_sec,omitempty"`
	WriteBytesSec          uint64 `json:"write_bytes_sec,omitempty"`
	TotalIopsSec           uint64 `json:"total_iops_sec,omitempty"`
	ReadIopsSec            uint64 `json:"read_iops_sec,omitempty"`
	WriteIopsSec           uint64 `json:"write_iops_sec,omitempty"`
	TotalBytesSecMax       uint64 `json:"total_bytes_sec_max,omitempty"`
	ReadBytesSecMax        uint64 `json:"read_bytes_sec_max,omitempty"`
	WriteBytesSecMax       uint64 `json:"write_bytes_sec_max,omitempty"`
	TotalIopsSecMax        uint64 `json:"total_iops_sec_max,omitempty"`
	ReadIopsSecMax         uint64 `json:"read_iops_sec_max,omitempty"`
	WriteIopsSecMax        uint64 `json:"write_iops_sec_max,omitempty"`
	TotalBytesSecMaxLength uint64 `json:"total_bytes_sec_max_length,omitempty"`
	ReadBytesSecMaxLength  uint64 `json:"read_bytes_sec_max_length,omitempty"`
	WriteBytesSecMaxLength uint64 `json:"write_bytes_sec_max_length,omitempty"`
	TotalIopsSecMaxLength  uint64 `json:"total_iops_sec_max_length,omitempty"`
	ReadIopsSecMaxLength   uint64 `json:"read_iops_sec_max_length,omitempty"`
	WriteIopsSecMaxLength  uint64 `json:"write_iops_sec_max_length,omitempty"`
	SizeIopsSec            uint64 `json:"size_iops_sec,omitempty"`
	// GroupName names disks of one machine that share their limits; libvirt makes
	// one up for a disk that has limits and is alone.
	GroupName string `json:"group_name,omitempty"`
}

// maxLimit is the most that QEMU takes. Source: QEMU, THROTTLE_VALUE_MAX.
const maxLimit = 1_000_000_000_000_000

// Limited says whether there is any limit.
func (q QoS) Limited() bool {
	q.GroupName = ""
	return q != QoS{}
}

// Limit is the limit with one of libvirt's names, "total_bytes_sec", to read or to
// set it; nil if there is no such limit.
func (q *QoS) Limit(name string) *uint64 {
	v := reflect.ValueOf(q).Elem()
	for i := range v.NumField() {
		own, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if p, ok := v.Field(i).Addr().Interface().(*uint64); ok && own == name {
			return p
		}
	}
	return nil
}

// Check refuses, with [ErrInvalid], what QEMU would refuse in words that do not
// say which limit it is.
func (q QoS) Check() error {
	refuse := func(format string, args ...any) error { return invalid("limits", format, args...) }
	get := func(parts ...string) uint64 { return *q.Limit(strings.Join(parts, "")) }
	for _, unit := range []string{"_bytes_sec", "_iops_sec"} {
		for _, burst := range []string{"", "_max"} {
			if get("total", unit, burst) == 0 {
				continue
			}
			for _, part := range []string{"read", "write"} {
				if get(part, unit, burst) > 0 {
					return refuse("%s excludes %s", "total"+unit+burst, part+unit+burst)
				}
			}
		}
		for _, part := range []string{"total", "read", "write"} {
			base := part + unit
			rate, burst := get(base), get(base, "_max")
			switch {
			case rate > maxLimit || burst > maxLimit:
				return refuse("%s is above %d, the most that QEMU takes", base, uint64(maxLimit))
			case burst > 0 && rate == 0:
				return refuse("%s_max needs %s", base, base)
			case burst > 0 && burst < rate:
				return refuse("%s_max, %d, is below %s, %d", base, burst, base, rate)
			case get(base, "_max_length") > 0 && burst == 0:
				return refuse("%s_max_length needs %s_max", base, base)
			}
		}
	}
	if q.SizeIopsSec > 0 && q.TotalIopsSec+q.ReadIopsSec+q.WriteIopsSec == 0 {
		return refuse("size_iops_sec needs total_iops_sec, read_iops_sec or write_iops_sec")
	}
	return nil
}

// String is "read 100 iops, up to 200 for 5 s; total 10 MiB/s", or "no limits".
func (q QoS) String() string {
	var all []string
	for _, unit := range []string{"bytes", "iops"} {
		show := func(n uint64) string {
			if unit == "bytes" {
				return disk.FormatSize(int64(n)) + "/s"
			}
			return fmt.Sprintf("%d iops", n)
		}
		for _, part := range []string{"total", "read", "write"} {
			base := part + "_" + unit + "_sec"
			rate, burst, length := *q.Limit(base), *q.Limit(base + "_max"), *q.Limit(base + "_max_length")
			if rate == 0 {
				continue
			}
			s := part + " " + show(rate)
			if burst > 0 {
				s += ", up to " + show(burst)
			}
			if length > 0 {
				s += fmt.Sprintf(" for %d s", length)
			}
			all = append(all, s)
		}
	}
	if q.SizeIopsSec > 0 {
		all = append(all, "an iop is "+disk.FormatSize(int64(q.SizeIopsSec)))
	}
	if len(all) == 0 {
		return "no limits"
	}
	return strings.Join(all, "; ")
}

// iotune is the element of a disk's XML.
func (q QoS) iotune() *libvirtxml.DomainDiskIOTune {
	if !q.Limited() {
		return nil
	}
	tune := libvirtxml.DomainDiskIOTune(q)
	return &tune
}

// qosOf is what a disk's XML says. A group of one says nothing, and libvirt names
// it in the running machine only.
func qosOf(d *libvirtxml.DomainDisk) QoS {
	if d.IOTune == nil {
		return QoS{}
	}
	q := QoS(*d.IOTune)
	if d.Alias != nil && strings.HasSuffix(q.GroupName, d.Alias.Name) {
		q.GroupName = ""
	}
	return q
}

// SetQoS replaces all limits of a machine's disk, in the running machine, if it
// runs, and in its definition.
//
// Similar to: virsh blkdeviotune --live --config.
func SetQoS(ctx context.Context, conn *libvirt.Connect, vm, target string, q QoS) error {
	if err := q.Check(); err != nil {
		return err
	}
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		flags, err := affect(d, vm)
		if err != nil {
			return err
		}
		return wrap("limit "+target+" of", vm, d.SetBlockIoTune(target, q.params(), libvirt.DomainModificationImpact(flags)))
	})
}

// params are the limits as libvirt's call takes them: each is set, for one that is
// left out would stay as it was. The fields have the names of QoS's own.
func (q QoS) params() *libvirt.DomainBlockIoTuneParameters {
	p := &libvirt.DomainBlockIoTuneParameters{}
	from, to := reflect.ValueOf(q), reflect.ValueOf(p).Elem()
	for i := range from.NumField() {
		name := from.Type().Field(i).Name
		to.FieldByName(name).Set(from.Field(i))
		to.FieldByName(name + "Set").SetBool(name != "GroupName" || q.GroupName != "")
	}
	return p
}
