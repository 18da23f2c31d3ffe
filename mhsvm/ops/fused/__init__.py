"""Operations that one kernel computes where torch needs several."""
