// An image as a stream of all its bytes: to a pipe, or to a checksum.

package disk

import "io"

// stream fills what is not written with zeros.
type stream struct {
	w    io.Writer
	pos  int64
	size int64
}

func (s *stream) write(p []byte, off int64) error {
	if err := s.fill(off); err != nil {
		return err
	}
	n, err := s.w.Write(p)
	s.pos += int64(n)
	return err
}

// fill writes zeros up to an offset.
func (s *stream) fill(to int64) error {
	for s.pos < to {
		n, err := s.w.Write(zeros[:min(to-s.pos, int64(len(zeros)))])
		s.pos += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) end() error { return s.fill(s.size) }

// layouts are several at once.
type layouts []layout

func (all layouts) write(p []byte, off int64) error {
	for _, l := range all {
		if err := l.write(p, off); err != nil {
			return err
		}
	}
	return nil
}

func (all layouts) end() error {
	for _, l := range all {
		if err := l.end(); err != nil {
			return err
		}
	}
	return nil
}
