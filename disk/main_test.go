// The lab that the tests of this package run on.

package disk

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/vmdisk/vmdisk/lab"
)

var testLab *lab.Lab

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

// testMain uses the lab in $VMDISK_LAB or one of its own; without one the tests
// fail.
func testMain(m *testing.M) int {
	ctx := context.Background()
	l, done, err := lab.Borrow(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "no lab:", err)
		return 1
	}
	defer func() { _ = done() }()
	testLab = l
	return m.Run()
}

func open(t testing.TB) *Cluster {
	t.Helper()
	c, err := Open(t.Context(), Config{Conf: testLab.Conf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// labImages is the pool of images.
func labImages(t testing.TB) *rados.IOContext {
	t.Helper()
	io, err := open(t).conn.OpenIOContext(ImagePool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(io.Destroy)
	return io
}
