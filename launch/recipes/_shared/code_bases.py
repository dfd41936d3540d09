"""How public code bases train on ImageNet: settings.

All take random resized crops of 224 px with flips, SGD with momentum 0.9 and weight decay 1e-4 on everything, and
divide the learning rate by ten at epochs 30, 60 and 90, where nothing else is said.
"""

from dataclasses import replace

from pipeline.config import Optimisation, Settings, Views

_BATCH_256 = Optimisation(epochs=100, batch=256, lr=0.1, milestones=(30, 60, 90))
_BATCH_512 = Optimisation(epochs=100, batch=512, lr=0.2, milestones=(30, 60, 90))
_DALI = Views(policy="imagenet_dali_simkd")
_A_GPU = 32  # images, on 8 GPUs: where a loss is one of the whole micro-batch, its size is part of what was published

TORCHVISION = Settings(optimisation=Optimisation(epochs=90, batch=256, lr=0.1, milestones=(30, 60)))
REPDISTILLER = Settings(optimisation=_BATCH_256)  # its author's words in its issue 10; its code trains on CIFAR-100
REVIEWKD = Settings(optimisation=_BATCH_256)
MDISTILLER = Settings(optimisation=_BATCH_512)  # KD, AT and DKD; LSKD's code is built on it
SRRL = Settings(optimisation=_BATCH_512)
CTKD = Settings(optimisation=replace(_BATCH_256, epochs=120))
CTKD_IN_32S = Settings(optimisation=replace(_BATCH_256, epochs=120, max_micro_batch=_A_GPU))
SIMKD = Settings(views=_DALI, optimisation=replace(_BATCH_256, epochs=120))
SEMCKD = Settings(views=_DALI, optimisation=replace(_BATCH_256, epochs=90, milestones=(30, 60), max_micro_batch=_A_GPU))
# its rate is lr * 0.1 ** (epoch // 30), and its epochs begin at 1: the thirtieth is the first at the lower rate
OFD = Settings(optimisation=replace(_BATCH_256, nesterov=True, milestones=(29, 59, 89)))
DIST = Settings(optimisation=replace(_BATCH_256, nesterov=True, decay="weights", max_micro_batch=_A_GPU))
CLS_KD = Settings(optimisation=_BATCH_256)
CLS_KD_MBV1 = Settings(optimisation=replace(_BATCH_256, clip_norm=5.0))
