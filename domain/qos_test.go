package domain

import (
	"errors"
	"strings"
	"testing"
)

func TestQoSCheck(t *testing.T) {
	for _, tt := range []struct {
		q    QoS
		says string // "" is fine
	}{
		{QoS{}, ""},
		{QoS{TotalBytesSec: 1 << 20, ReadIopsSec: 5, WriteIopsSec: 5}, ""},
		{QoS{TotalBytesSec: 10, TotalBytesSecMax: 10, TotalBytesSecMaxLength: 3}, ""},
		{QoS{TotalIopsSec: 5, SizeIopsSec: 4096}, ""},
		{QoS{TotalBytesSec: 1, ReadBytesSec: 1}, "total_bytes_sec excludes read_bytes_sec"},
		{QoS{TotalIopsSec: 1, WriteIopsSec: 1}, "total_iops_sec excludes write_iops_sec"},
		{QoS{ReadIopsSec: 1, ReadIopsSecMax: 2, TotalIopsSecMax: 2}, "total_iops_sec_max excludes read_iops_sec_max"},
		{QoS{ReadBytesSecMax: 5}, "read_bytes_sec_max needs read_bytes_sec"},
		{QoS{ReadBytesSec: 6, ReadBytesSecMax: 5}, "below"},
		{QoS{WriteIopsSec: 6, WriteIopsSecMaxLength: 5}, "write_iops_sec_max_length needs write_iops_sec_max"},
		{QoS{TotalBytesSec: 1, SizeIopsSec: 4096}, "size_iops_sec needs"},
		{QoS{WriteBytesSec: maxLimit + 1}, "write_bytes_sec is above"},
	} {
		err := tt.q.Check()
		if (err == nil) != (tt.says == "") || err != nil && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%+v: %v, want %q", tt.q, err, tt.says)
		}
	}
}

func TestQoSString(t *testing.T) {
	for want, q := range map[string]QoS{
		"no limits": {GroupName: "x"},
		"total 10 MiB/s, up to 20 MiB/s for 5 s; read 100 iops": {
			TotalBytesSec: 10 << 20, TotalBytesSecMax: 20 << 20, TotalBytesSecMaxLength: 5, ReadIopsSec: 100},
		"write 7 iops; an iop is 4 KiB": {WriteIopsSec: 7, SizeIopsSec: 4096},
	} {
		if got := q.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A volume with limits is what libvirt's schema takes, and is read back as it was
// written.
func TestQoSXML(t *testing.T) {
	m, d := machine(), volume()
	d.QoS = QoS{TotalBytesSec: 1 << 20, TotalBytesSecMax: 2 << 20, TotalBytesSecMaxLength: 5, ReadIopsSec: 7, WriteIopsSec: 8, SizeIopsSec: 4096, GroupName: "g"}
	m.Disks = []Disk{root(), d}
	xml, err := m.XML()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "limits.xml", xml)
	found, err := ParseDisks(xml)
	if err != nil || found[0].QoS != (QoS{}) || found[1].QoS != d.QoS {
		t.Errorf("read back %+v, %v", found, err)
	}
}
