from .algebraformer import Algebraformer as Algebraformer
from .algebraformer import predict as predict
from .config import ModelConfig as ModelConfig
