// Sizes as people type them.

package main

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

var sizeForm = regexp.MustCompile(`(?i)^([0-9]+(?:\.[0-9]+)?)([KMGTP])(i?B)?$`)

// parseSize reads 10G, 512M, 1.5T or 10GiB; units are binary. A bare number is
// refused, for rbd reads it as MiB, qemu-img as bytes and virsh as KiB.
func parseSize(text string) (int64, error) {
	m := sizeForm.FindStringSubmatch(text)
	if m == nil {
		return 0, usagef("size %q is not a number with a unit, such as 512M, 10G or 1T", text)
	}
	value, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, usagef("size %q: %v", text, err)
	}
	power := strings.Index("KMGTP", strings.ToUpper(m[2])) + 1
	bytes := value * math.Pow(1024, float64(power))
	if bytes < 1 || bytes > math.MaxInt64/2 || bytes != math.Trunc(bytes) {
		return 0, usagef("size %q is not a whole number of bytes above 0 that Ceph can hold", text)
	}
	return int64(bytes), nil
}

// parseGrowth reads a size, or with a plus in front how much to grow by.
func parseGrowth(text string) (size int64, by bool, err error) {
	text, by = strings.CutPrefix(text, "+")
	size, err = parseSize(text)
	return size, by, err
}

// optionalSize is a size flag that may be missing, which is 0.
func optionalSize(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	return parseSize(text)
}
