"""Fast arithmetic on a processor's vectors, each part with a twin in torch.

build library   `cpp/` compiled when it is first needed (torch need not be imported), and loaded
layers          whole layers in one call, over `weights`, `attention`, `norms`, `low_rank`,
                `dropout` and `layout`
adamw           the optimizer's step
precision       which number format is fastest here

Where there is no compiler the twins compute the same. May import: core.
"""
