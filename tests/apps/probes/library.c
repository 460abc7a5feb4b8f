/* A library that is loaded late. */
__attribute__((noinline)) long lib_work(long value) {
    volatile long kept[4] = {value, value, value, value};
    if (value < 0) return kept[1];
    return kept[0] * 2;
}
