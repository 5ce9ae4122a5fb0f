// The header by which a guest knows a disk as swap space.

package disk

import (
	"context"
	"encoding/binary"

	"github.com/google/uuid"
)

// swapPage is the page size of the machines that vmdisk makes, x86_64.
const swapPage = 4096

// FormatSwap writes an empty swap area of the image's size, as Nova's swap disks
// have one: the guest needs only swapon, or a line in its fstab.
//
// Similar to: mkswap.
func (c *Cluster) FormatSwap(ctx context.Context, n Name) error {
	size, err := c.Size(ctx, n)
	if err != nil {
		return err
	}
	return c.WriteAll(ctx, n, swapHeader(size, uuid.New()))
}

// swapHeader is the first page of a swap area. Source: union swap_header in
// Linux's include/linux/swap.h.
func swapHeader(size int64, id uuid.UUID) []byte {
	page := make([]byte, swapPage)
	const info = 1024 // before it is room for a boot loader
	binary.LittleEndian.PutUint32(page[info:], 1)
	binary.LittleEndian.PutUint32(page[info+4:], uint32(size/swapPage-1)) // the last page
	copy(page[info+12:], id[:])
	copy(page[swapPage-10:], "SWAPSPACE2")
	return page
}
