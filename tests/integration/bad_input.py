"""What people get wrong, a table a program: `test_bad_input` runs the rows.

A row is what is amiss beforehand, if anything (`test_bad_input.AMISS`), a line, its exit code, and words of what it
says. Capitals stand for files and folders of the test: DATA (train/ and val/), PHOTOS and VAL are images, RUN a
finished run, STORE a filled store, TEACHER its teacher, TEN the weights of a teacher of ten classes, FOREIGN a folder
and MINE a file of someone else, NEW what is not there.
"""

from recorded import GOLDEN, read

Row = tuple[str, str, int, list[str]]

RECIPES = list(read(GOLDEN / "flags.json")["and"])
BACKENDS = ["dali", "ffcv", "synthetic", "torchvision"]

BREAKS = "a file that breaks while training"
TINY = "--synthetic-samples 40 --synthetic-classes 4 --resolution 32 --batch 8 --log-every 1"
NEW = f"smoke --out NEW {TINY} --max-steps 1 --eval-every 100"
IMAGES = "smoke --out NEW --data DATA --backend torchvision --max-steps 1 --eval-every 100"
AGAIN = f"smoke --out RUN {TINY} --checkpoint-every 1 --eval-every 100 --max-steps 4"
IMAGENET: list[Row] = [
    ("", "kd_r34_r81 --out NEW", 2, ["unknown recipe 'kd_r34_r81'", "Did you mean 'kd_r34_r18'?", *RECIPES]),
    ("", "smoke --out NEW --epochs many", 2, ["--epochs", "many"]),
    ("", f"{NEW} --student resnet81", 2, ["unknown model 'resnet81'", "Did you mean 'resnet18'?", "mobilenet_v1"]),
    ("", f"{NEW} --backend torchvision", 2, ["no train images were named", "--data DIR"]),
    (
        "",
        f"{NEW} --train-dir PHOTOS --val-dir PHOTOS --backend torchvison",
        2,
        ["unknown backend 'torchvison'. Did you mean 'torchvision'?", *BACKENDS],
    ),
    ("", f"{NEW} --store /no/such", 2, ["no such store", "/no/such"]),
    ("", f"{NEW} --policy imagenet_trian", 2, ["unknown policy", "Did you mean 'imagenet_train'?", "_dali_simkd"]),
    ("", f"{NEW} --teacher demo_teacher", 2, ["demo_teacher@random", "needs weights"]),
    ("", f"{NEW} --teacher demo_teacher@/no/such.pt", 2, ["/no/such.pt", "not found"]),
    ("", f"{NEW} --teacher resnet18@IMAGENET1K_V1", 2, ["1000 classes", "the data set has 4"]),
    ("", f"{NEW} --teacher resnet18@IMAGENET1K_V9", 2, ["unknown weights of resnet18", "IMAGENET1K_V1"]),
    ("", f"{NEW} --student nowhere.py:net", 2, ["no such file: nowhere.py"]),
    ("", f"{NEW} --batch 9 --micro-batches 2", 2, ["--batch 9", "--micro-batches (2)", "8 or 10"]),
    ("", f"{NEW} --batch 48", 2, ["--batch 48", "40 samples"]),
    ("", f"{NEW} --batch 0", 2, ["--batch", "above 0", "0"]),
    ("", f"{NEW} --max-micro-batch 0", 2, ["--max-micro-batch", "above 0", "0"]),
    ("", f"{NEW} --student resnet18 --resolution 32 --batch 1", 2, ["1 x 1 at 32 px", "--batch", "--resolution"]),
    ("", f"{NEW} --resolution -1", 2, ["--resolution", "-1"]),
    ("", f"{NEW} --ema-decay 1.5", 2, ["--ema-decay", "1.5"]),
    ("", f"{NEW} --temperature 0", 2, ["--temperature", "0"]),
    ("", f"{NEW} --run-seed -3", 2, ["--run-seed", "-3"]),
    ("", f"{NEW} --beton x.beton --backend torchvision", 2, ["--beton", "ffcv", "torchvision"]),
    ("", f"{NEW} --backend ffcv", 2, ["no train images were named", "--beton FILE"]),
    ("", f"{NEW} --data /no/such/folder --backend torchvision", 1, ["/no/such/folder/train"]),
    ("", f"{NEW} --sync-bn", 2, ["--sync-bn", "CUDA"]),
    ("", f"{NEW} --cuda-graphs teacher --device cpu", 2, ["--cuda-graphs teacher", "CUDA"]),
    ("", f"{NEW} --dali-decoder mixed", 2, ["--dali-decoder mixed", "takes synthetic here", "name dali"]),
    ("", f"{NEW} --dali-hw-decoder-load 2", 2, ["--dali-hw-decoder-load", "2"]),
    ("no CUDA", f"{NEW} --device cuda", 2, ["--device cuda", "--device cpu"]),
    # images
    ("an empty class", IMAGES, 1, ["class4", "holds no image"]),
    ("no classes", IMAGES, 1, ["holds no class folders"]),
    ("no val", IMAGES, 1, ["no such folder", "val"]),
    ("other classes", IMAGES, 1, ["the same classes", "class9"]),
    ("an empty file", IMAGES, 1, ["class1/003.jpg", "0 bytes"]),
    ("a cut file", IMAGES, 1, ["class1/003.jpg", "not a readable image"]),
    ("a text", IMAGES, 1, ["class1/003.jpg", "not a readable image"]),
    (
        BREAKS,
        f"{IMAGES} --resolution 32 --batch 36",
        1,
        ["class1/003.jpg (sample id 21) cannot be decoded", "--on-bad-image gray"],
    ),
    ("", f"{IMAGES} --teacher demo_teacher@TEN", 2, ["10 classes", "the data set has 4"]),
    ("", f"{IMAGES} --teacher resnet18@TEN", 2, ["10 classes", "the data set has 4"]),
    # a folder that is no run's, and a run
    ("", f"smoke --out FOREIGN {TINY}", 2, ["thesis.tex", "another folder"]),
    ("", f"smoke --out MINE {TINY}", 2, ["MINE is a file", "name a folder"]),
    ("", f"{AGAIN} --lr 0.5 --weight-decay 0.3", 2, ["difference: optimisation.lr\n  saved: 0.05\n  now:   0.5"]),
    ("", f"{AGAIN} --student resnet81", 2, ["resnet81"]),
    ("", f"{AGAIN} --lr -1", 2, ["--lr"]),
    ("", f"{AGAIN} --batch 48", 2, ["--batch 48"]),
    ("other samples", f"{AGAIN} --synthetic-samples 48", 1, ["train data are not those", "checkpoint: "]),
    (
        "no whole checkpoint",
        AGAIN,
        1,
        ["step-00000003.pt is damaged", "step-00000004.pt is damaged", "move the folder away"],
    ),
    ("half a configuration", AGAIN, 1, ["config.json cannot be read"]),
    ("a newer configuration", AGAIN, 2, ["['telepathy']"]),
]

FILL = (
    "--teacher TEACHER --train-dir PHOTOS --val-dir VAL --backend torchvision --resolution 32 --threads 1"
    " --device cpu --batch 16 --shard-rows 32 --keep dense_f16,embedding_f16"
)
ON, BEGIN = f"{FILL} --store STORE", f"{FILL} --store NEW"
PRECOMPUTE: list[Row] = [
    ("", f"{ON} --plan-seed 4", 1, ["'plan_seed' differs", "store:    0", "this job: 4"]),
    ("", f"{ON} --policy imagenet_eval", 1, ["'policy."]),
    ("", f"{ON} --resolution 40", 1, ["'teacher.resolution' differs", "store:    32", "this job: 40"]),
    ("", f"{ON} --batch 8", 1, ["'teacher.batch' differs"]),
    ("", f"{ON} --keep dense_f16", 1, ["'codecs"]),
    ("", f"{ON} --teacher demo_teacher@random", 1, ["'teacher.", "this job"]),
    ("", f"{ON} --expect-top1 99", 2, ["expected: 99.00 %", "measured:", "Wrong normalisation"]),
    ("", f"{ON} --teacher resnet18", 2, ["a teacher needs weights"]),
    ("", f"{ON} --keep zip", 2, ["unknown codec 'zip'", "dense_f16"]),
    ("", f"{ON} --train-dir /nowhere", 1, ["no such folder", "/nowhere"]),
    ("", f"{BEGIN} --teacher resnet18", 2, ["a teacher needs weights"]),
    ("", f"{BEGIN} --keep zip", 2, ["unknown codec 'zip'"]),
    ("", f"{BEGIN} --keep topk:5000", 2, ["k = 5000"]),
    ("", f"{FILL} --store FOREIGN", 2, ["thesis.tex"]),
]

PREPARE: list[Row] = [
    ("", "index", 2, ["--data DIR"]),
    ("", "index --train-dir DATA/train", 2, ["--out DIR"]),
    ("", "index --data NEW", 1, ["no such folder", "NEW/train"]),
    ("", "index --dada x", 2, ["--dada"]),
    ("", "index --data DATA --out MINE/sub", 2, ["cannot write into MINE/sub", "--out"]),
    ("", "index --data DATA --out /proc", 2, ["cannot write into /proc", "--out"]),
    ("other classes", "index --data DATA", 1, ["same classes", "class3", "class9"]),
    ("a file in the index's place", "index --data DATA", 1, ["val.index.h5 exists and differs"]),
    ("", "ffcv --out NEW", 2, ["exactly one of --data, --folder and --index; got none"]),
    ("", "ffcv --out NEW --data a --index b", 2, ["got --data, --index"]),
    ("", "ffcv --out NEW --folder a --max-side 0", 2, ["--max-side must be 16 or more and 65500 or less, got 0"]),
    ("", "ffcv --out NEW --folder a --quality 101", 2, ["--quality must be 1 or more and 100 or less, got 101"]),
    ("", "ffcv --out NEW --folder a --num-workers 0", 2, ["--num-workers must be above 0, got 0"]),
    ("", "ffcv --out MINE --data DATA", 2, ["--force"]),
]

STORES: list[Row] = [
    *[("", f"{name} FOREIGN", 1, ["error: FOREIGN is not a store"]) for name in ("show", "verify", "index")],
    ("a damaged head", "index STORE", 1, ["head.h5"]),
    ("", "verify", 2, ["STORE"]),
    ("", "shows STORE", 2, ["shows"]),
    ("", "verify STORE --data DATA", 2, ["python -m precompute audit STORE --data DATA"]),
]

BENCHMARKS: list[Row] = [
    ("", "loader --data PHOTOS --backends dalli", 2, ["unknown backend to measure 'dalli'. Did you mean 'dali'?"]),
    ("", "loader --data PHOTOS --repeats 0", 2, ["--repeats must be above 0, got 0"]),
    ("", "loader --data PHOTOS --backends torchvision --batch 73", 2, ["at most the 72 images"]),
    ("", "loader --data PHOTOS --work /no/such", 2, ["--work /no/such must be a folder that exists"]),
    ("", "precompute --data PHOTOS --images 0", 2, ["--images must be above 0, got 0"]),
    ("", "precompute --data PHOTOS --work /no/such", 2, ["--work /no/such must be a folder that exists"]),
    ("", "codecs --data PHOTOS --teacher resnet81@random", 2, ["unknown model 'resnet81'"]),
    ("", "codecs --data PHOTOS --teacher resnet18@V7", 2, ["unknown weights of resnet18 'V7'"]),
    ("", "codecs --data PHOTOS --teacher resnet18@random --policy x", 2, ["unknown policy 'x'"]),
    ("", "codecs --data PHOTOS --teacher resnet18@random --png MINE", 2, ["exists; nothing is overwritten"]),
    (
        "",
        "codecs --data PHOTOS --teacher resnet18@random --png /no/such/x.png",
        2,
        ["/no/such does not: make"],
    ),
    ("", "store --work /no/such", 2, ["--work /no/such must be a folder that exists"]),
    ("", "store --rows 100 --batch 256", 2, ["--rows must be 256 or more, got 100"]),
    ("", "store --json MINE", 2, ["exists; nothing is overwritten"]),
    ("", "kernels --device gpu", 2, ["cpu"]),
    ("", "kernels --batches 0", 2, ["--batches must be above 0, got 0"]),
    ("", "kernels --batches 64 -1", 2, ["--batches must be above 0, got 64 -1"]),
    ("", "kernels --batches", 2, ["--batches names nothing to measure"]),
    ("", "kernels --losses", 2, ["--losses names nothing to measure"]),
    ("", "kernels --classes 1", 2, ["--classes must be 2 or more, got 1"]),
    ("", "kernels --repeats 0", 2, ["--repeats must be above 0, got 0"]),
    ("", "kernels --losses kdd", 2, ["unknown loss to measure 'kdd'. Did you mean 'dkd'?"]),
    ("", "kernels --rivals ligre", 2, ["unknown rival to measure 'ligre'. Did you mean 'liger'?"]),
    ("", "kernels --json /no/such/x.json", 2, ["--json /no/such/x.json must lie in a folder that exists"]),
    ("", "epoch --data PHOTOS --rounds 0", 2, ["--rounds must be above 0, got 0"]),
    ("", "epoch --data PHOTOS --seconds 0", 2, ["--seconds must be above 0, got 0.0"]),
    ("", "epoch --data PHOTOS --teacher resnet81@random", 2, ["unknown model 'resnet81'"]),
    ("", "epoch --data PHOTOS --backend dalii", 2, ["unknown backend 'dalii'"]),
    ("", "epoch --data PHOTOS --student demo", 2, ["unknown model 'demo'"]),
    ("", "step --methods kdd", 2, ["unknown method 'kdd'"]),
    ("", "step --steps 0", 2, ["--steps must be above 0, got 0"]),
    ("", "epoch --data PHOTOS --seconds inf", 2, ["--seconds must be finite and above 0, got inf"]),
    ("", "kernel --repeats 1", 2, ["unknown benchmark 'kernel'. Did you mean 'kernels'?"]),
    ("", "", 2, ["name a benchmark: codecs, epoch, gpu, "]),
    ("", "gpu --sections stak", 2, ["unknown section 'stak'. Did you mean 'stack'?"]),
    ("", "gpu --minutes 0", 2, ["--minutes must be above 0, got 0.0"]),
    ("", "gpu --json MINE", 2, ["exists; nothing is overwritten"]),
    ("", "loader --data /no/such", 1, ["error: no such folder: /no/such"]),
    ("", "precompute --data /no/such", 1, ["error: no such folder: /no/such"]),
    ("", "epoch --data /no/such", 1, ["error: no such folder: /no/such"]),
    ("", "codecs --teacher resnet18@random --data /no/such", 1, ["error: no such folder: /no/such"]),
]
