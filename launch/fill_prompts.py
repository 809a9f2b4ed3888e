"""Fill the demo's prompts with any trained model: python launch/fill_prompts.py runs/demo"""

import sys

from bert_jax.inference.demo_prompts import fill_demo_prompts

if __name__ == "__main__":
    print(fill_demo_prompts(sys.argv[1]))
