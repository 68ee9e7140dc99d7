package fleet

// PID is the process's id, also of one that has ended.
func (p *Process) PID() int { return p.cmd.Process.Pid }
